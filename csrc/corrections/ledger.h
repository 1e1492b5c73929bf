// What the records of a journal mean: which candidates wait, which rows joined the memory bank, which were taken out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corrections/journal.h"

namespace onceover {

inline constexpr size_t kMaxTextBytes = 1024;  // of a name, note or reason; UTF-8 by convention
inline constexpr size_t kMaxNamed = 65536;     // proposals or rows of one record

// Where a candidate stands.
enum class Standing : uint32_t { kQuarantined = 0, kConfirmed = 1, kRejected = 2, kEvicted = 3, kUndone = 4 };
const char* name_of(Standing standing) noexcept;
const char* name_of(RecordType type) noexcept;

// A false alarm as it was seen: the patches of an image that were too far from everything in the memory bank.
struct Candidate {
  std::string name, note;         // of the image; what a person says of it
  Digest image{};                 // SHA-256 of its file; zeros: unknown
  float score = 0;                // of the image, with the rows and corrections of that moment
  float threshold = 0;            // then in force
  std::vector<uint32_t> patches;  // (n) tile after tile, row by row; worst first
};

struct Proposal : Candidate {
  uint64_t id = 0;  // the sequence number of its record
  uint32_t product = 0;
  uint32_t first_row = 0;    // among all rows that were ever proposed for its product; its row i is the (first + i)-th
  uint64_t rows_offset = 0;  // in the file: float32 (n, D)
  Standing standing = Standing::kQuarantined;
  uint64_t confirmed_by = 0;  // the record in force; 0: none
  uint64_t evicted_by = 0;    // the confirmation that there was no room beside
};

struct Operation {
  RecordType type = RecordType::kPropose;
  uint64_t sequence = 0;
  uint32_t product = 0;  // of propose and remove
  int64_t time = 0;
  std::string text;             // who and why
  std::vector<uint64_t> named;  // proposals of confirm and reject; bank rows of remove; the operation of undo
  uint64_t undone_by = 0;
};

// Rows of one product's fitted memory bank, and their width.
struct BankShape {
  uint32_t fitted_rows = 0;
  uint32_t dims = 0;
};

class Ledger {
 public:
  // max_added_rows: of each product.
  Ledger(std::vector<BankShape> products, uint32_t max_added_rows)
      : products_(std::move(products)), max_added_rows_(max_added_rows) {}

  // Applies the next record. Throws Error(kUsage) for one that makes no sense after those before it (an unknown id, a
  // row that is not there), before anything changes; Error(kPackage) for a payload that is none.
  void apply(const RecordView& record);

  const std::vector<Operation>& operations() const { return operations_; }
  const std::vector<Proposal>& proposals() const { return proposals_; }
  const Proposal* find(uint64_t id) const;
  uint32_t max_added_rows() const { return max_added_rows_; }

  // Numbers of the fitted rows of a product that are taken out, ascending.
  std::vector<uint32_t> removed_rows(uint32_t product) const;
  // A confirmed row: its number in the bank (fitted rows come first), which never changes or returns, and where it is.
  struct AddedRow {
    uint32_t number;
    uint64_t offset;
  };
  std::vector<AddedRow> added_rows(uint32_t product) const;  // ascending by number
  size_t added_row_count(uint32_t product) const;
  // The operation that undo would take back; null: there is none left.
  const Operation* last_effective() const;

 private:
  const BankShape& shape(uint32_t product) const;
  Proposal& proposal(uint64_t id);
  bool is_removed(uint32_t product, uint32_t row) const;
  void propose(const RecordView& record);
  void name(const RecordView& record);
  void effect(const Operation& operation);
  void confirm(const Operation& operation);
  void check_room(const Operation& operation);
  void evict(uint32_t product, const Operation& operation);
  void remove(const Operation& operation);
  void undo(const Operation& operation);
  uint32_t rows_in_force(const Proposal& proposal) const;

  std::vector<BankShape> products_;
  uint32_t max_added_rows_;
  std::vector<Operation> operations_;
  std::vector<Proposal> proposals_;
  struct RemovedRow {
    uint32_t product, row;
    bool operator==(const RemovedRow& other) const { return product == other.product && row == other.row; }
    bool operator<(const RemovedRow& other) const {
      return product != other.product ? product < other.product : row < other.row;
    }
  };
  std::vector<RemovedRow> removed_;  // ascending
};

// Payloads, as FORMAT.md lays them out. Throw Error(kUsage) for texts or numbers out of range.
std::vector<uint8_t> write_candidate(const Candidate& candidate, const float* rows, uint32_t dims);
std::vector<uint8_t> write_named(const std::vector<uint64_t>& named, const std::string& text);

}  // namespace onceover
