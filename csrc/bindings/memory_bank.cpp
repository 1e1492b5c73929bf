// Python door of csrc/scoring/memory_bank: MemoryBank over numpy rows, which it keeps alive and never copies to search.
#include "scoring/memory_bank.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <atomic>
#include <optional>

#include "base/turn.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/scoring.h"
#include "kernels/dispatch.h"

namespace py = pybind11;

namespace onceover {
namespace {

Representation representation_named(const std::string& name) {
  for (const Representation each : {Representation::kScan, Representation::kRank, Representation::kFull}) {
    if (name == name_of(each)) return each;
  }
  fail(Status::kUnknownName, "representation '%s' does not exist; known: scan, rank, full", name.c_str());
}

using Progress = std::function<void(size_t, size_t)>;

class ArrayMemoryBank {
 public:
  ArrayMemoryBank(const py::array& rows, const std::optional<py::array>& samples, uint64_t seed,
                  const std::optional<std::string>& representation, size_t rank1, size_t rank2, size_t screened,
                  size_t memory_limit, const std::optional<Progress>& progress, const IsaName& isa)
      : rows_(rows) {
    options_.seed = seed;
    if (samples) options_.samples = view_matrix<float>(*samples, "samples");
    if (options_.samples.rows > 0 && options_.samples.columns != static_cast<size_t>(rows.shape(rows.ndim() - 1))) {
      fail(Status::kInput, "samples have %zu values per row, the memory bank %zu; both must agree",
           options_.samples.columns, static_cast<size_t>(rows.shape(rows.ndim() - 1)));
    }
    if (representation) {
      options_.forced = true;
      options_.representation = representation_named(*representation);
      options_.rank1 = rank1;
      options_.rank2 = rank2;
      options_.screened = screened;
    }
    if (progress) {
      options_.progress = [report = *progress](size_t done, size_t total) {
        const py::gil_scoped_acquire hold;
        report(done, total);
      };
    }
    const MatrixView<const float> view = view_matrix<float>(rows, "rows");
    const KernelTable& table = table_for(isa);
    {
      py::gil_scoped_release release;
      bank_.emplace(view, options_, table, memory_limit);
    }
    options_.samples = {};
    options_.progress = nullptr;
  }

  ArrayMemoryBank(const py::array& rows, const py::array& index, const IsaName& isa) : rows_(rows), index_(index) {
    const uint8_t* bytes = view_elements<uint8_t>(index, 1, "index");
    if (reinterpret_cast<uintptr_t>(bytes) % kAlignment != 0) {
      fail(Status::kInput, "index does not start at a multiple of 64 bytes; pass the member of an open package");
    }
    bank_.emplace(view_matrix<float>(rows, "rows"), bytes, static_cast<size_t>(index.size()), table_for(isa));
  }

  py::tuple search(const py::array& queries, size_t k, size_t threads) {
    const MatrixView<const float> asked = view_matrix<float>(queries, "queries");
    if (k < 1 || k > kMaxNeighbors) fail(Status::kUsage, "k is %zu, expected 1 to %zu neighbors", k, kMaxNeighbors);
    const Reader reading(*this);
    auto distances = new_array<float>({asked.rows, k});
    auto numbers = new_array<int64_t>({asked.rows, k});
    float* to = distances.mutable_data();
    int64_t* ids = numbers.mutable_data();
    SearchStats stats;
    {
      py::gil_scoped_release release;
      // uint32 in the lower half of the output, then widened from the back: no second array.
      auto* narrow = reinterpret_cast<uint32_t*>(ids);
      bank_->search(asked, k, to, narrow, threads, stats);
      for (size_t i = asked.rows * k; i-- > 0;) {
        uint32_t id;
        std::memcpy(&id, narrow + i, sizeof id);
        ids[i] = id == kNoRow ? -1 : static_cast<int64_t>(id);
      }
    }
    stats_ = stats;
    return py::make_tuple(distances, numbers);
  }

  size_t add(const py::array& rows) {
    const MatrixView<const float> added = view_matrix<float>(rows, "rows");
    const Writer writing(*this);
    py::gil_scoped_release release;
    return bank_->add(added);
  }

  void remove(const std::vector<int64_t>& rows) {
    std::vector<uint32_t> ids;
    for (const int64_t row : rows) {
      if (row < 0 || row >= kNoRow) {
        fail(Status::kUsage, "row %lld cannot be removed: no such number; nothing was changed",
             static_cast<long long>(row));
      }
      ids.push_back(static_cast<uint32_t>(row));
    }
    const Writer writing(*this);
    py::gil_scoped_release release;
    bank_->remove(ids.data(), ids.size());
  }

  void compact() {
    const Writer writing(*this);
    py::gil_scoped_release release;
    bank_->compact(options_);
  }

  // Copies, because add and remove move what they would view.
  py::bytes index_bytes() {
    const Reader reading(*this);
    return py::bytes(reinterpret_cast<const char*>(bank_->index_data()), bank_->index_size());
  }
  py::array_t<float> rows() {
    const Reader reading(*this);
    const MatrixView<const float>& view = bank_->index().rows;
    auto out = new_array<float>({view.rows, view.columns});
    std::copy_n(view.data, view.rows * view.columns, out.mutable_data());
    return out;
  }
  py::array_t<bool> alive() {
    const Reader reading(*this);
    auto out = new_array<bool>({bank_->index().row_count});
    for (size_t i = 0; i < bank_->index().row_count; ++i)
      out.mutable_data()[i] = bank_->index().states[i] != RowState::kRemoved;
    return out;
  }

  py::dict stats() const {
    py::dict out;
    out["isa"] = bank_->table().name;
    out["queries"] = stats_.queries;
    out["coarse_queries"] = stats_.coarse_queries;
    out["hit_blocks"] = stats_.hit_blocks;
    out["refined_rows"] = stats_.refined_rows;
    out["measured_rows"] = stats_.measured_rows;
    out["exact_rows"] = stats_.exact_rows;
    out["scanned_queries"] = stats_.scanned_queries;
    out["float64_queries"] = stats_.float64_queries;
    return out;
  }

  template <typename What>
  auto read(What what) {
    const Reader reading(*this);
    return what(static_cast<const MemoryBank&>(*bank_));
  }

 private:
  // Many searches at once, or one change; a change and anything else refuse each other. Taken while the GIL is held.
  class Reader {
   public:
    explicit Reader(ArrayMemoryBank& bank) : bank_(bank) {
      if (bank.changing_) refuse("is being changed");
      ++bank.readers_;
    }
    ~Reader() { --bank_.readers_; }

   private:
    ArrayMemoryBank& bank_;
  };
  class Writer {
   public:
    explicit Writer(ArrayMemoryBank& bank) : bank_(bank) {
      if (bank.changing_ || bank.readers_ > 0) refuse("is in use");
      bank.changing_ = true;
    }
    ~Writer() { bank_.changing_ = false; }

   private:
    ArrayMemoryBank& bank_;
  };
  [[noreturn]] static void refuse(const char* why) {
    fail(Status::kUsage, "this memory bank %s by another thread; wait for it, or use a bank per thread", why);
  }

  py::array rows_;
  py::array index_;
  BuildOptions options_;
  std::optional<MemoryBank> bank_;  // filled by the constructor, without the GIL
  SearchStats stats_;
  std::atomic<int> readers_{0};
  std::atomic<bool> changing_{false};
};

}  // namespace

void bind_memory_bank(py::module_& module) {
  using Bank = ArrayMemoryBank;
  py::class_<Bank>(module, "MemoryBank", "Rows (M, D) float32 and their search index; onceover.MemoryBank is its face.")
      .def(py::init<const py::array&, const std::optional<py::array>&, uint64_t, const std::optional<std::string>&,
                    size_t, size_t, size_t, size_t, const std::optional<Progress>&, const IsaName&>(),
           py::arg("rows"), py::kw_only(), py::arg("samples") = py::none(), py::arg("seed") = 0,
           py::arg("representation") = py::none(), py::arg("rank1") = 0, py::arg("rank2") = 0,
           py::arg("screened") = kDefaultScreened, py::arg("memory_limit_bytes") = 0, py::arg("progress") = py::none(),
           py::arg("isa") = py::none())
      .def_static(
          "view",
          [](const py::array& rows, const py::array& index, const IsaName& isa) {
            return std::make_unique<Bank>(rows, index, isa);
          },
          py::arg("rows"), py::arg("index"), py::arg("isa") = py::none())
      .def("search", &Bank::search, py::arg("queries"), py::arg("k") = 1, py::arg("threads") = 1)
      .def("add", &Bank::add, py::arg("rows"))
      .def("remove", &Bank::remove, py::arg("rows"))
      .def("compact", &Bank::compact)
      .def("index_bytes", &Bank::index_bytes)
      .def("rows", &Bank::rows)
      .def_property_readonly("alive", &Bank::alive)
      .def_property_readonly("stats", &Bank::stats)
      .def_property_readonly(
          "dims", [](Bank& bank) { return bank.read([](const MemoryBank& core) { return core.index().dims; }); })
      .def_property_readonly(
          "row_count", [](Bank& bank) { return bank.read([](const MemoryBank& core) { return core.row_count(); }); })
      .def_property_readonly(
          "representation",
          [](Bank& bank) {
            return bank.read([](const MemoryBank& core) { return std::string(name_of(core.index().representation)); });
          })
      .def_property_readonly("ranks",
                             [](Bank& bank) {
                               return bank.read([](const MemoryBank& core) {
                                 return py::make_tuple(core.index().screened, core.index().rank1, core.index().rank2);
                               });
                             })
      .def_property_readonly("index_size_bytes", [](Bank& bank) {
        return bank.read([](const MemoryBank& core) { return core.index_size(); });
      });
}

}  // namespace onceover
