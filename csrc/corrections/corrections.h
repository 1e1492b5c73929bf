// The corrections of one package: its journal, and what the records of it come to. Every change is one record, checked
// against all those before it, and on the disk when the function returns.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/matrix_view.h"
#include "corrections/ledger.h"
#include "package/reader.h"

namespace onceover {

inline constexpr uint32_t kLeastAddedRows = 256;  // of the default bound, a tenth of the largest bank's fitted rows

// What becomes of one product's memory bank: its fitted rows without `removed`, then the rows of `added`.
struct BankChanges {
  std::vector<uint32_t> removed;  // numbers of fitted rows, ascending
  std::vector<uint32_t> numbers;  // (n) of the added rows, ascending, from the number of fitted rows on
  std::vector<float> added;       // (n, D)

  bool none() const { return removed.empty() && numbers.empty(); }
  bool operator==(const BankChanges& other) const {
    return removed == other.removed && numbers == other.numbers && added == other.added;
  }
};

class Corrections {
 public:
  // Reads the journal at `path`; one that is not there has no records and is made by the first change. `max_added_rows`
  // is for a new journal, of each product; 0: the default. Throws Error(kInput) for a journal of another package,
  // kPackage for damage.
  Corrections(std::shared_ptr<const Package> package, std::string path, uint32_t max_added_rows = 0);

  void refresh();  // what others wrote since

  // A candidate with its embeddings (n, D), quarantined until confirmed; returns its number. Throws Error(kUsage) for
  // one that the bound has no room for, kInput for a value that is not finite, kOutput.
  uint64_t propose(uint32_t product, const Candidate& candidate, MatrixView<const float> rows, int64_t time);
  // Each throws Error(kUsage) for numbers that are not there, before anything changes, or kOutput. `text`: who and why.
  uint64_t confirm(const std::vector<uint64_t>& ids, const std::string& text, int64_t time);
  uint64_t reject(const std::vector<uint64_t>& ids, const std::string& text, int64_t time);
  uint64_t remove(uint32_t product, const std::vector<uint64_t>& rows, const std::string& text, int64_t time);
  // The last operation in force, of whichever product; returns its number.
  uint64_t undo(const std::string& text, int64_t time);

  const Ledger& ledger() const { return ledger_; }
  const JournalState& state() const { return state_; }
  uint32_t max_added_rows() const { return ledger_.max_added_rows(); }
  uint32_t product_count() const { return static_cast<uint32_t>(shapes_.size()); }
  const std::vector<BankChanges>& changes() const { return changes_; }  // by product
  const BankChanges& changes(uint32_t product) const { return changes_.at(product); }
  uint32_t fitted_rows(uint32_t product) const { return shapes_.at(product).fitted_rows; }
  uint32_t dims(uint32_t product) const { return shapes_.at(product).dims; }
  const Package& package() const { return *package_; }
  const std::shared_ptr<const Package>& shared_package() const { return package_; }
  const std::string& path() const { return path_; }

 private:
  Ledger read(const JournalFile& file, JournalState& state) const;
  void keep(const JournalFile& file, Ledger ledger, const JournalState& state);
  void write(RecordType type, uint32_t product, int64_t time, const std::vector<uint8_t>& payload);

  std::shared_ptr<const Package> package_;
  std::string path_;
  std::vector<BankShape> shapes_;
  uint32_t wanted_added_rows_;
  Ledger ledger_;
  JournalState state_;
  std::vector<BankChanges> changes_;  // by product
};

}  // namespace onceover
