#include "corrections/corrections.h"

#include <algorithm>

#include "base/error.h"
#include "base/finite.h"
#include "package/products.h"

namespace onceover {
namespace {

std::vector<BankShape> shapes_of(const Package& package) {
  const size_t products = read_products(package).size();
  std::vector<BankShape> shapes;
  for (uint32_t product = 0; product < products; ++product) {
    const MemberView& bank = package.require(member_name("memory_bank", product));
    bank.as<float>(2);  // refuses another type or rank
    shapes.push_back({static_cast<uint32_t>(bank.dimensions[0]), static_cast<uint32_t>(bank.dimensions[1])});
  }
  return shapes;
}

uint32_t default_bound(const std::vector<BankShape>& shapes) {
  uint32_t rows = 0;
  for (const BankShape& each : shapes) rows = std::max(rows, each.fitted_rows);
  return std::max(kLeastAddedRows, rows / 10);
}

std::string short_hex(const Digest& digest) { return hex(digest).substr(0, 16); }

}  // namespace

Corrections::Corrections(std::shared_ptr<const Package> package, std::string path, uint32_t max_added_rows)
    : package_(std::move(package)),
      path_(std::move(path)),
      shapes_(shapes_of(*package_)),
      wanted_added_rows_(max_added_rows > 0 ? max_added_rows : default_bound(shapes_)),
      ledger_(shapes_, wanted_added_rows_) {
  refresh();
}

Ledger Corrections::read(const JournalFile& file, JournalState& state) const {
  // The bound is in the file's header, which is read before any record.
  Ledger ledger(shapes_, wanted_added_rows_);
  state = file.read(
      [&](const JournalState& start) {
        if (start.package_id != package_->id()) {
          fail(Status::kInput,
               "%s: holds corrections of the package %s, not of %s (%s); give that package, or leave the journal out",
               path_.c_str(), short_hex(start.package_id).c_str(), short_hex(package_->id()).c_str(),
               package_->label().c_str());
        }
        ledger = Ledger(shapes_, start.max_added_rows);
      },
      [&](const RecordView& record) {
        try {
          ledger.apply(record);
        } catch (const Error& error) {
          const Status status = error.status() == Status::kUnsupported ? Status::kUnsupported : Status::kPackage;
          fail(status, "%s: record %llu does not follow from those before it: %s", path_.c_str(),
               static_cast<unsigned long long>(record.header.sequence), error.what());
        }
      });
  return ledger;
}

void Corrections::keep(const JournalFile& file, Ledger ledger, const JournalState& state) {
  std::vector<BankChanges> changes(shapes_.size());
  for (uint32_t product = 0; product < shapes_.size(); ++product) {
    BankChanges& to = changes[product];
    to.removed = ledger.removed_rows(product);
    const std::vector<Ledger::AddedRow> rows = ledger.added_rows(product);
    const size_t dims = shapes_[product].dims;
    to.added.resize(rows.size() * dims);
    for (size_t i = 0; i < rows.size(); ++i) {
      to.numbers.push_back(rows[i].number);
      file.read_at(rows[i].offset, to.added.data() + i * dims, dims * sizeof(float));
    }
  }
  ledger_ = std::move(ledger);
  state_ = state;
  changes_ = std::move(changes);
}

void Corrections::refresh() {
  const JournalFile file(path_, JournalFile::Mode::kRead);
  JournalState state;
  Ledger ledger = read(file, state);
  keep(file, std::move(ledger), state);
}

void Corrections::write(RecordType type, uint32_t product, int64_t time, const std::vector<uint8_t>& payload) {
  const auto record_after = [&](const JournalState& state, uint64_t offset) {
    return RecordView{{static_cast<uint32_t>(type), product, payload.size(), state.records + 1, time}, payload, offset};
  };
  if (!state_.exists) {  // what will be refused makes no file
    Ledger trial(shapes_, wanted_added_rows_);
    trial.apply(record_after({}, 0));
  }
  JournalFile file(path_, JournalFile::Mode::kWrite);
  JournalState state;
  Ledger ledger = read(file, state);
  if (!state.exists) {
    state = file.begin(package_->id(), wanted_added_rows_);
    ledger = Ledger(shapes_, wanted_added_rows_);
  }
  ledger.apply(record_after(state, JournalFile::payload_offset(state)));
  file.append(state, type, product, time, payload);
  keep(file, std::move(ledger), state);
}

uint64_t Corrections::propose(uint32_t product, const Candidate& candidate, MatrixView<const float> rows,
                              int64_t time) {
  if (product >= shapes_.size()) {
    fail(Status::kUsage, "product %u does not exist, the package has %zu", product, shapes_.size());
  }
  if (rows.columns != shapes_[product].dims || rows.stride != rows.columns || rows.rows != candidate.patches.size() ||
      rows.rows == 0) {
    fail(Status::kUsage, "a candidate of %zu patches has %zu x %zu values, expected one row of %u for each",
         candidate.patches.size(), rows.rows, rows.columns, shapes_[product].dims);
  }
  check_finite_rows(rows, "the candidate's rows");
  write(RecordType::kPropose, product, time, write_candidate(candidate, rows.data, shapes_[product].dims));
  return state_.records;
}

uint64_t Corrections::confirm(const std::vector<uint64_t>& ids, const std::string& text, int64_t time) {
  write(RecordType::kConfirm, 0, time, write_named(ids, text));
  return state_.records;
}

uint64_t Corrections::reject(const std::vector<uint64_t>& ids, const std::string& text, int64_t time) {
  write(RecordType::kReject, 0, time, write_named(ids, text));
  return state_.records;
}

uint64_t Corrections::remove(uint32_t product, const std::vector<uint64_t>& rows, const std::string& text,
                             int64_t time) {
  write(RecordType::kRemove, product, time, write_named(rows, text));
  return state_.records;
}

uint64_t Corrections::undo(const std::string& text, int64_t time) {
  refresh();
  const Operation* last = ledger_.last_effective();
  if (last == nullptr) fail(Status::kUsage, "%s: there is nothing left to undo", path_.c_str());
  const uint64_t undone = last->sequence;
  write(RecordType::kUndo, 0, time, write_named({undone}, text));
  return undone;
}

}  // namespace onceover
