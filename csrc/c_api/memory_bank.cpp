// The memory bank in C: scoring/memory_bank.h and scoring/search.h behind onceover_memory_bank.h.
#include "scoring/memory_bank.h"

#include <cstddef>

#include "c_api/guard.h"
#include "kernels/dispatch.h"
#include "onceover_memory_bank.h"
#include "scoring/search.h"

struct onceover_memory_bank final : onceover::MemoryBank {
  using onceover::MemoryBank::MemoryBank;
};

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_memory_bank_options> =
    offsetof(onceover_memory_bank_options, isa) + sizeof(const char*);
template <>
inline constexpr size_t kFirstSize<onceover_memory_bank_info> =
    offsetof(onceover_memory_bank_info, index_bytes) + sizeof(size_t);
template <>
inline constexpr size_t kFirstSize<onceover_memory_bank_stats> =
    offsetof(onceover_memory_bank_stats, float64_queries) + sizeof(uint64_t);

namespace {

static_assert(ONCEOVER_MAX_NEIGHBORS == kMaxNeighbors && ONCEOVER_NO_ROW == kNoRow);

using Rows = MatrixView<const float>;

Rows view_rows(const float* rows, size_t row_count, size_t dims, const char* name) {
  return {required_array(rows, row_count, name), row_count, dims};
}

// What search_scratch_bytes counts on may start at any address.
constexpr size_t kToAlign = kAlignment - 1;

size_t scratch_bytes_for(const MemoryBank& bank, size_t k) {
  if (k < 1 || k > kMaxNeighbors) fail(Status::kUsage, "k is %zu, expected 1 to %zu neighbors", k, kMaxNeighbors);
  return search_scratch_bytes(bank.index(), k) + kToAlign;
}

uint8_t* aligned(void* scratch) noexcept {
  const uintptr_t address = reinterpret_cast<uintptr_t>(scratch);
  return static_cast<uint8_t*>(scratch) + (kAlignment - address % kAlignment) % kAlignment;
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_memory_bank_build(const float* rows, size_t row_count, size_t dims,
                                           const onceover_memory_bank_options* options, onceover_memory_bank** bank) {
  return guarded(__func__, [&] {
    *required(bank, "bank") = nullptr;
    const onceover_memory_bank_options given = read_struct(options, "options");
    BuildOptions build;
    build.seed = given.seed;
    build.samples = view_rows(given.samples, given.sample_count, dims, "options->samples");
    const KernelTable& table = given.isa == nullptr ? kernels() : kernels_named(given.isa);
    *bank = new onceover_memory_bank(view_rows(rows, row_count, dims, "rows"), build, table, given.max_memory_bytes);
  });
}

onceover_status onceover_memory_bank_view(const float* rows, size_t row_count, size_t dims, const void* index,
                                          size_t index_bytes, onceover_memory_bank** bank) {
  return guarded(__func__, [&] {
    *required(bank, "bank") = nullptr;
    const Rows view = view_rows(rows, row_count, dims, "rows");
    const auto* bytes = static_cast<const uint8_t*>(required_array(index, index_bytes, "index"));
    if (reinterpret_cast<uintptr_t>(bytes) % kAlignment != 0) {
      fail(Status::kUsage, "index is at %p, expected a multiple of %zu bytes; map it or copy it to such an address",
           index, kAlignment);
    }
    *bank = new onceover_memory_bank(view, bytes, index_bytes, kernels());
  });
}

onceover_status onceover_memory_bank_index(const onceover_memory_bank* bank, const void** index, size_t* index_bytes) {
  return guarded(__func__, [&] {
    required(bank, "bank");
    required(index_bytes, "index_bytes");
    *required(index, "index") = bank->index_data();
    *index_bytes = bank->index_size();
  });
}

onceover_status onceover_memory_bank_scratch_bytes(const onceover_memory_bank* bank, size_t k, size_t* scratch_bytes) {
  return guarded(__func__,
                 [&] { *required(scratch_bytes, "scratch_bytes") = scratch_bytes_for(*required(bank, "bank"), k); });
}

onceover_status onceover_memory_bank_search(const onceover_memory_bank* bank, const float* queries, size_t query_count,
                                            size_t stride_floats, size_t k, float* distances, uint32_t* indices,
                                            void* scratch, size_t scratch_bytes, onceover_memory_bank_stats* stats) {
  return guarded(__func__, [&] {
    const SearchIndex& index = required(bank, "bank")->index();
    required_array(queries, query_count, "queries");
    required_array(distances, query_count, "distances");
    required_array(indices, query_count, "indices");
    required(scratch, "scratch");
    if (stats != nullptr) check_struct_size(*stats, "stats");
    if (query_count > UINT32_MAX) fail(Status::kUsage, "query_count is %zu, expected less than 2^32", query_count);
    if (stride_floats < index.dims) {
      fail(Status::kUsage, "stride_floats is %zu, expected at least the %zu values of a row", stride_floats,
           index.dims);
    }
    const size_t needed = scratch_bytes_for(*bank, k);
    if (scratch_bytes < needed) {
      fail(Status::kUsage,
           "scratch_bytes is %zu, this bank and k = %zu need %zu; ask onceover_memory_bank_scratch_bytes",
           scratch_bytes, k, needed);
    }
    SearchStats did;
    search(index, {queries, query_count, index.dims, stride_floats}, k, distances, indices, bank->table(),
           aligned(scratch), did);
    if (stats == nullptr) return;
    onceover_memory_bank_stats told = {};
    told.queries = did.queries;
    told.coarse_queries = did.coarse_queries;
    told.hit_blocks = did.hit_blocks;
    told.refined_rows = did.refined_rows;
    told.measured_rows = did.measured_rows;
    told.exact_rows = did.exact_rows;
    told.scanned_queries = did.scanned_queries;
    told.float64_queries = did.float64_queries;
    write_struct(told, *stats);
  });
}

onceover_status onceover_memory_bank_add(onceover_memory_bank* bank, const float* rows, size_t row_count,
                                         uint32_t* first) {
  return guarded(__func__, [&] {
    const size_t dims = required(bank, "bank")->index().dims;
    const size_t number = bank->add(view_rows(rows, row_count, dims, "rows"));
    if (first != nullptr) *first = static_cast<uint32_t>(number);
  });
}

onceover_status onceover_memory_bank_remove(onceover_memory_bank* bank, const uint32_t* rows, size_t row_count) {
  return guarded(__func__, [&] { required(bank, "bank")->remove(required_array(rows, row_count, "rows"), row_count); });
}

onceover_status onceover_memory_bank_describe(const onceover_memory_bank* bank, onceover_memory_bank_info* info) {
  return guarded(__func__, [&] {
    required(bank, "bank");
    check_struct_size(*required(info, "info"), "info");
    onceover_memory_bank_info told = {};
    told.rows = bank->row_count();
    told.dims = bank->index().dims;
    told.representation = name_of(bank->index().representation);
    told.isa = bank->table().name;
    told.index_bytes = bank->index_size();
    write_struct(told, *info);
  });
}

void onceover_memory_bank_free(onceover_memory_bank* bank) { delete bank; }
