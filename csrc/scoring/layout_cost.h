// What a search of an index would cost, from what a search of samples counted: by this, build.cpp chooses a layout.
//
// Cycles of an AVX-512 VNNI core per query: counted whole numbers times fixed weights, the same on every machine, as
// the bytes of an index must be, which is built once and searched anywhere.
//
// So nothing here asks what this machine would rather have. AMX multiplies 64 coordinates at once: it screens all where
// others screen 32 of 64 (search.cpp), and at a tenth of the price, by the cycles of its instruction. Priced so, the
// choice for features of networks (96 to 1024 dims, 1,000 to 10,000 rows) is the same; it differs where 64 coordinates
// tell rows apart badly (Gaussian, of deviation j^-0.7 or flatter in direction j): there AMX would take `full`.
#pragma once

#include "kernels/kernel_table.h"
#include "scoring/search.h"
#include "scoring/search_index.h"

namespace onceover {

double screening_cost(size_t slots, size_t coordinates) noexcept;

// Of a query; rank2 as the index has it.
double coding_cost(size_t dims, size_t rank2, Representation representation) noexcept;

// Of looking a second time at the blocks that passed.
double hit_cost(const SearchIndex& index, const SearchStats& stats) noexcept;

// All of it, at least coding and screening; more counts never cost less. `stats` are of a search with counting_kernels.
double modelled_cost(const SearchIndex& index, const SearchStats& stats) noexcept;

// Of a search of all rows without an index.
double scan_cost(size_t rows, size_t dims) noexcept;

// What counts the same everywhere, with the instructions of `table`. Results are the same on every instruction set, but
// not how many rows it takes to prove them: avx2 has coarser codes, amx screens whole tiles, float sums in another
// order put queries in another one. So products are those of the table's `counting`, sums of floats scalar's.
KernelTable counting_kernels(const KernelTable& table);

}  // namespace onceover
