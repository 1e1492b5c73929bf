#include "corrections/ledger.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

using ull = unsigned long long;  // printf's %llu

struct CandidateRecord {  // then patches u32[rows], embeddings f32[rows][dims], name, note
  float score, threshold;
  uint32_t row_count, dims;
  uint32_t name_bytes, note_bytes;
  Digest image;
  uint8_t zeros[8];
};
static_assert(sizeof(CandidateRecord) == 64);

struct NamedRecord {  // then numbers u64[count], text
  uint32_t count, text_bytes;
};
static_assert(sizeof(NamedRecord) == 8);

void check_text(const std::string& text, const char* what) {
  if (text.size() > kMaxTextBytes) {
    fail(Status::kUsage, "the %s has %zu bytes, at most %zu are kept; shorten it", what, text.size(), kMaxTextBytes);
  }
}

// The next `count` elements of a payload whose size was counted first.
template <typename T>
void put(uint8_t*& at, const T* from, size_t count) {
  if (count > 0) std::memcpy(at, from, count * sizeof(T));
  at += count * sizeof(T);
}

[[noreturn]] void fail_payload(const RecordView& record) {
  fail(Status::kPackage, "record %llu of the journal: its %llu bytes are no %s; a newer onceover may have written it",
       ull{record.header.sequence}, ull{record.header.payload_bytes},
       name_of(static_cast<RecordType>(record.header.type)));
}

}  // namespace

const char* name_of(Standing standing) noexcept {
  static constexpr const char* kNames[] = {"quarantined", "confirmed", "rejected", "evicted", "undone"};
  return kNames[static_cast<uint32_t>(standing)];
}

const char* name_of(RecordType type) noexcept {
  static constexpr const char* kNames[] = {"record", "propose", "confirm", "reject", "remove", "undo"};
  const auto number = static_cast<uint32_t>(type);
  return kNames[number <= 5 ? number : 0];
}

std::vector<uint8_t> write_candidate(const Candidate& candidate, const float* rows, uint32_t dims) {
  check_text(candidate.name, "name");
  check_text(candidate.note, "note");
  CandidateRecord record{};
  record.score = candidate.score;
  record.threshold = candidate.threshold;
  record.row_count = static_cast<uint32_t>(candidate.patches.size());
  record.dims = dims;
  record.name_bytes = static_cast<uint32_t>(candidate.name.size());
  record.note_bytes = static_cast<uint32_t>(candidate.note.size());
  record.image = candidate.image;
  const size_t values = candidate.patches.size() * dims;
  std::vector<uint8_t> bytes(sizeof record + 4 * (candidate.patches.size() + values) + candidate.name.size() +
                             candidate.note.size());
  uint8_t* at = bytes.data();
  put(at, &record, 1);
  put(at, candidate.patches.data(), candidate.patches.size());
  put(at, rows, values);
  put(at, candidate.name.data(), candidate.name.size());
  put(at, candidate.note.data(), candidate.note.size());
  return bytes;
}

std::vector<uint8_t> write_named(const std::vector<uint64_t>& named, const std::string& text) {
  check_text(text, "reason");
  if (named.empty() || named.size() > kMaxNamed) {
    fail(Status::kUsage, "%zu numbers were given, expected 1 to %zu", named.size(), kMaxNamed);
  }
  const NamedRecord record{static_cast<uint32_t>(named.size()), static_cast<uint32_t>(text.size())};
  std::vector<uint8_t> bytes(sizeof record + 8 * named.size() + text.size());
  uint8_t* at = bytes.data();
  put(at, &record, 1);
  put(at, named.data(), named.size());
  put(at, text.data(), text.size());
  return bytes;
}

const BankShape& Ledger::shape(uint32_t product) const {
  if (product >= products_.size()) {
    fail(Status::kUsage, "product %u does not exist, the package has %zu", product, products_.size());
  }
  return products_[product];
}

const Proposal* Ledger::find(uint64_t id) const {
  const auto at = std::lower_bound(proposals_.begin(), proposals_.end(), id,
                                   [](const Proposal& proposal, uint64_t wanted) { return proposal.id < wanted; });
  return at != proposals_.end() && at->id == id ? &*at : nullptr;
}

Proposal& Ledger::proposal(uint64_t id) {
  const Proposal* found = find(id);
  if (found == nullptr || found->standing == Standing::kUndone) {
    fail(Status::kUsage, "%llu is no candidate%s; see the list for the numbers", ull{id},
         found == nullptr ? "" : " any more, it was undone");
  }
  return const_cast<Proposal&>(*found);
}

bool Ledger::is_removed(uint32_t product, uint32_t row) const {
  return std::binary_search(removed_.begin(), removed_.end(), RemovedRow{product, row});
}

void Ledger::apply(const RecordView& record) {
  switch (static_cast<RecordType>(record.header.type)) {
    case RecordType::kPropose:
      return propose(record);
    case RecordType::kConfirm:
    case RecordType::kReject:
    case RecordType::kRemove:
    case RecordType::kUndo:
      return name(record);
  }
  fail(Status::kUnsupported, "record %llu of the journal has the type %u, which this onceover does not know; update it",
       ull{record.header.sequence}, record.header.type);
}

void Ledger::propose(const RecordView& record) {
  const std::vector<uint8_t>& payload = record.payload;
  CandidateRecord fields{};
  if (payload.size() < sizeof fields) fail_payload(record);
  std::memcpy(&fields, payload.data(), sizeof fields);
  const BankShape& bank = shape(record.header.product);
  const uint64_t patch_bytes = uint64_t{4} * fields.row_count, row_bytes = patch_bytes * fields.dims;
  const uint64_t expected = sizeof fields + patch_bytes + row_bytes + fields.name_bytes + fields.note_bytes;
  if (fields.dims != bank.dims || fields.row_count == 0 || fields.row_count > kMaxNamed || expected != payload.size()) {
    fail_payload(record);
  }
  if (fields.row_count > max_added_rows_) {
    fail(Status::kUsage,
         "the candidate has %u rows, the journal holds at most %u confirmed ones; this image is no "
         "single false alarm, fit again with such parts",
         fields.row_count, max_added_rows_);
  }
  const uint8_t* at = payload.data() + sizeof fields;
  Proposal made;
  made.patches.resize(fields.row_count);
  std::memcpy(made.patches.data(), at, static_cast<size_t>(patch_bytes));
  at += patch_bytes;
  std::vector<float> row(fields.dims);
  for (uint32_t i = 0; i < fields.row_count; ++i, at += 4 * row.size()) {
    std::memcpy(row.data(), at, 4 * row.size());
    if (!all_finite(row.data(), row.size())) fail_payload(record);
  }
  made.name.assign(reinterpret_cast<const char*>(at), fields.name_bytes);
  made.note.assign(reinterpret_cast<const char*>(at) + fields.name_bytes, fields.note_bytes);
  made.score = fields.score;
  made.threshold = fields.threshold;
  made.image = fields.image;
  made.id = record.header.sequence;
  made.product = record.header.product;
  made.rows_offset = record.payload_offset + sizeof fields + patch_bytes;
  uint64_t first = 0;
  for (const Proposal& each : proposals_) {
    if (each.product == made.product) first = uint64_t{each.first_row} + each.patches.size();
  }
  if (bank.fitted_rows + first + fields.row_count >= UINT32_MAX) {
    fail(Status::kUsage, "the memory bank's row numbers are used up; compact the journal into a new package");
  }
  made.first_row = static_cast<uint32_t>(first);
  Operation operation;
  operation.type = RecordType::kPropose;
  operation.sequence = made.id;
  operation.product = made.product;
  operation.time = record.header.time;
  operation.named = {made.id};
  proposals_.push_back(std::move(made));
  operations_.push_back(std::move(operation));
}

void Ledger::name(const RecordView& record) {
  const std::vector<uint8_t>& payload = record.payload;
  NamedRecord fields{};
  if (payload.size() < sizeof fields) fail_payload(record);
  std::memcpy(&fields, payload.data(), sizeof fields);
  if (fields.count == 0 || fields.count > kMaxNamed ||
      sizeof fields + uint64_t{8} * fields.count + fields.text_bytes != payload.size()) {
    fail_payload(record);
  }
  Operation operation;
  operation.type = static_cast<RecordType>(record.header.type);
  operation.sequence = record.header.sequence;
  operation.product = record.header.product;
  operation.time = record.header.time;
  operation.named.resize(fields.count);
  std::memcpy(operation.named.data(), payload.data() + sizeof fields, 8 * operation.named.size());
  operation.text.assign(reinterpret_cast<const char*>(payload.data()) + payload.size() - fields.text_bytes,
                        fields.text_bytes);
  shape(operation.product);
  std::vector<uint64_t> sorted = operation.named;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) fail(Status::kUsage, "%llu was named twice; name each once", ull{*twice});
  effect(operation);
  operations_.push_back(std::move(operation));
}

void Ledger::effect(const Operation& operation) {
  switch (operation.type) {
    case RecordType::kPropose:
      return;  // a candidate changes nothing until it is confirmed
    case RecordType::kConfirm:
      return confirm(operation);
    case RecordType::kReject:
      for (const uint64_t id : operation.named) {
        if (proposal(id).standing == Standing::kRejected) {
          fail(Status::kUsage, "%llu is rejected already; nothing was changed", ull{id});
        }
      }
      for (const uint64_t id : operation.named) {
        proposal(id).standing = Standing::kRejected;
        proposal(id).confirmed_by = proposal(id).evicted_by = 0;
      }
      return;
    case RecordType::kRemove:
      return remove(operation);
    case RecordType::kUndo:
      return undo(operation);
  }
}

uint32_t Ledger::rows_in_force(const Proposal& proposal) const {
  uint32_t rows = 0;
  const uint32_t first = shape(proposal.product).fitted_rows + proposal.first_row;
  for (uint32_t i = 0; i < proposal.patches.size(); ++i) rows += is_removed(proposal.product, first + i) ? 0 : 1;
  return rows;
}

size_t Ledger::added_row_count(uint32_t product) const {
  size_t rows = 0;
  for (const Proposal& each : proposals_) {
    if (each.product == product && each.standing == Standing::kConfirmed) rows += rows_in_force(each);
  }
  return rows;
}

void Ledger::check_room(const Operation& operation) {
  std::vector<size_t> candidates(products_.size()), rows(products_.size());
  for (const uint64_t id : operation.named) {
    const Proposal& each = proposal(id);
    if (each.standing == Standing::kConfirmed) {
      fail(Status::kUsage, "%llu is confirmed already; nothing was changed", ull{id});
    }
    ++candidates[each.product];
    rows[each.product] += rows_in_force(each);
  }
  for (size_t product = 0; product < products_.size(); ++product) {
    if (rows[product] <= max_added_rows_) continue;
    fail(Status::kUsage,
         "these %zu candidates have %zu rows, the journal holds at most %u confirmed ones%s; confirm fewer at a time",
         candidates[product], rows[product], max_added_rows_, products_.size() > 1 ? " of a product" : "");
  }
}

void Ledger::confirm(const Operation& operation) {
  check_room(operation);
  for (const uint64_t id : operation.named) {
    Proposal& each = proposal(id);
    each.standing = Standing::kConfirmed;
    each.confirmed_by = operation.sequence;
    each.evicted_by = 0;
  }
  for (uint32_t product = 0; product < products_.size(); ++product) evict(product, operation);
}

// The bound holds by letting go of what was confirmed longest ago, never of a fitted row or of another product.
void Ledger::evict(uint32_t product, const Operation& operation) {
  for (size_t rows = added_row_count(product); rows > max_added_rows_;) {
    Proposal* oldest = nullptr;
    for (Proposal& each : proposals_) {
      if (each.product != product || each.standing != Standing::kConfirmed) continue;
      if (oldest == nullptr || each.confirmed_by < oldest->confirmed_by) oldest = &each;
    }
    rows -= rows_in_force(*oldest);
    oldest->standing = Standing::kEvicted;
    oldest->confirmed_by = 0;
    oldest->evicted_by = operation.sequence;
  }
}

void Ledger::remove(const Operation& operation) {
  const uint32_t product = operation.product, fitted = shape(product).fitted_rows;
  size_t left = fitted - removed_rows(product).size();
  std::vector<RemovedRow> after = removed_;
  for (const uint64_t row : operation.named) {
    bool there = row < fitted;
    for (const Proposal& each : proposals_) {
      if (there || each.product != product || each.standing != Standing::kConfirmed) continue;
      const uint64_t first = uint64_t{fitted} + each.first_row;
      there = row >= first && row < first + each.patches.size();
    }
    if (!there || is_removed(product, static_cast<uint32_t>(row))) {
      fail(Status::kUsage,
           "row %llu is not in the memory bank (fitted rows are 0 to %u, confirmed ones follow); "
           "nothing was changed",
           ull{row}, fitted - 1);
    }
    after.push_back({product, static_cast<uint32_t>(row)});
    left -= row < fitted ? 1 : 0;
  }
  if (left == 0) fail(Status::kUsage, "that would leave no fitted row in the memory bank; nothing was changed");
  std::sort(after.begin(), after.end());
  removed_ = std::move(after);
}

const Operation* Ledger::last_effective() const {
  for (auto each = operations_.rbegin(); each != operations_.rend(); ++each) {
    if (each->type != RecordType::kUndo && each->undone_by == 0) return &*each;
  }
  return nullptr;
}

void Ledger::undo(const Operation& operation) {
  const Operation* last = last_effective();
  if (last == nullptr) fail(Status::kUsage, "there is nothing left to undo");
  if (operation.named.size() != 1 || operation.named[0] != last->sequence) {
    fail(Status::kUsage, "only the last operation in force, %llu, can be undone", ull{last->sequence});
  }
  operations_[last->sequence - 1].undone_by = operation.sequence;
  removed_.clear();
  for (Proposal& each : proposals_) {
    each.standing = operations_[each.id - 1].undone_by == 0 ? Standing::kQuarantined : Standing::kUndone;
    each.confirmed_by = each.evicted_by = 0;
  }
  // What was in force before it still is, applied in the same order. Numbers of rows do not come back.
  for (const Operation& each : operations_) {
    if (each.undone_by == 0 && each.type != RecordType::kUndo) effect(each);
  }
}

std::vector<uint32_t> Ledger::removed_rows(uint32_t product) const {
  std::vector<uint32_t> rows;
  for (const RemovedRow& each : removed_) {
    if (each.product == product && each.row < shape(product).fitted_rows) rows.push_back(each.row);
  }
  return rows;
}

std::vector<Ledger::AddedRow> Ledger::added_rows(uint32_t product) const {
  std::vector<AddedRow> rows;
  const BankShape& bank = shape(product);
  for (const Proposal& each : proposals_) {
    if (each.product != product || each.standing != Standing::kConfirmed) continue;
    for (uint32_t i = 0; i < each.patches.size(); ++i) {
      const uint32_t number = bank.fitted_rows + each.first_row + i;
      if (!is_removed(product, number)) rows.push_back({number, each.rows_offset + uint64_t{4} * bank.dims * i});
    }
  }
  return rows;
}

}  // namespace onceover
