// Corrections in C: corrections/corrections.h behind onceover_corrections.h.
#include "corrections/corrections.h"

#include <cstddef>
#include <optional>

#include "c_api/session.h"
#include "compaction/compact.h"
#include "onceover_corrections.h"

struct onceover_corrections final {
  onceover_corrections(std::shared_ptr<const onceover::Package> package, const char* path, uint32_t max_added_rows)
      : corrections(std::move(package), path, max_added_rows) {}

  onceover::Corrections corrections;
  std::atomic<bool> busy{false};
};

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_corrections_options> =
    offsetof(onceover_corrections_options, max_added_rows) + sizeof(uint32_t);
template <>
inline constexpr size_t kFirstSize<onceover_corrections_info> =
    offsetof(onceover_corrections_info, max_added_rows) + sizeof(uint32_t);
template <>
inline constexpr size_t kFirstSize<onceover_corrected_product> =
    offsetof(onceover_corrected_product, removed_rows) + sizeof(uint32_t);
template <>
inline constexpr size_t kFirstSize<onceover_operation> = offsetof(onceover_operation, threshold) + sizeof(float);
template <>
inline constexpr size_t kFirstSize<onceover_candidate> = offsetof(onceover_candidate, image_sha256) + sizeof(Digest);

template <>
inline constexpr size_t kFirstSize<onceover_compact_options> =
    offsetof(onceover_compact_options, progress_context) + sizeof(void*);

static_assert(ONCEOVER_PROPOSE == static_cast<int>(RecordType::kPropose) &&
              ONCEOVER_UNDO == static_cast<int>(RecordType::kUndo));
static_assert(ONCEOVER_QUARANTINED == static_cast<int>(Standing::kQuarantined) &&
              ONCEOVER_UNDONE == static_cast<int>(Standing::kUndone));
static_assert(ONCEOVER_CALIBRATION_FITTED == static_cast<int>(CalibrationState::kFitted) &&
              ONCEOVER_CALIBRATION_STALE == static_cast<int>(CalibrationState::kStale));

namespace {

// The body of a function on a journal, for one thread at a time.
template <typename Body>
onceover_status with_corrections(const char* function, onceover_corrections* corrections, const Body& body) noexcept {
  return guarded(function, [&] {
    const Turn turn(required(corrections, "corrections")->busy, "journal");
    body(corrections->corrections);
  });
}

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

std::vector<uint64_t> numbers_of(const uint64_t* numbers, size_t count, const char* name) {
  required_array(numbers, count, name);
  return {numbers, numbers + count};
}

onceover_operation told(const Operation& operation, const Ledger& ledger, const Corrections& corrections) {
  onceover_operation out = {};
  out.type = static_cast<uint32_t>(operation.type);
  out.product = operation.product;
  out.time = operation.time;
  out.undone_by = operation.undone_by;
  out.text = operation.text.data();
  out.text_bytes = operation.text.size();
  out.named = operation.named.data();
  out.named_count = operation.named.size();
  if (operation.type != RecordType::kPropose) return out;
  const Proposal& proposal = *ledger.find(operation.sequence);
  out.text = proposal.name.data();
  out.text_bytes = proposal.name.size();
  out.standing = static_cast<uint32_t>(proposal.standing);
  out.row_count = static_cast<uint32_t>(proposal.patches.size());
  out.first_row = corrections.fitted_rows(proposal.product) + proposal.first_row;
  out.score = proposal.score;
  out.threshold = proposal.threshold;
  return out;
}

void require_same_package(const Session& session, const Corrections& corrections) {
  if (session.package().id() != corrections.package().id()) {
    fail(Status::kUsage, "the journal is of another package (%s) than the session (%s)",
         corrections.package().label().c_str(), session.package().label().c_str());
  }
}

void check_product(uint32_t number, size_t count) {
  if (number >= count) fail(Status::kUsage, "product %u does not exist, the package has %zu", number, count);
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_corrections_open(const onceover_package* package, const char* path,
                                          const onceover_corrections_options* options,
                                          onceover_corrections** corrections) {
  return guarded(__func__, [&] {
    *required(corrections, "corrections") = nullptr;
    const onceover_corrections_options given = read_struct(options, "options");
    *corrections =
        new onceover_corrections(required(package, "package")->package, required(path, "path"), given.max_added_rows);
  });
}

void onceover_corrections_free(onceover_corrections* corrections) { delete corrections; }

onceover_status onceover_corrections_refresh(onceover_corrections* corrections) {
  return with_corrections(__func__, corrections, [](Corrections& own) { own.refresh(); });
}

onceover_status onceover_corrections_describe(onceover_corrections* corrections, onceover_corrections_info* info) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    check_struct_size(*required(info, "info"), "info");
    onceover_corrections_info out = {};
    std::copy(own.state().head.begin(), own.state().head.end(), out.id);
    out.operations = own.state().records;
    for (const BankChanges& each : own.changes()) {
      out.added_rows += static_cast<uint32_t>(each.numbers.size());
      out.removed_rows += static_cast<uint32_t>(each.removed.size());
    }
    out.max_added_rows = own.max_added_rows();
    write_struct(out, *info);
  });
}

onceover_status onceover_corrections_describe_product(onceover_corrections* corrections, uint32_t number,
                                                      onceover_corrected_product* product) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    check_struct_size(*required(product, "product"), "product");
    check_product(number, own.product_count());
    onceover_corrected_product out = {};
    out.fitted_rows = own.fitted_rows(number);
    out.added_rows = static_cast<uint32_t>(own.changes(number).numbers.size());
    out.removed_rows = static_cast<uint32_t>(own.changes(number).removed.size());
    write_struct(out, *product);
  });
}

onceover_status onceover_corrections_operation(onceover_corrections* corrections, uint64_t number,
                                               onceover_operation* operation) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    check_struct_size(*required(operation, "operation"), "operation");
    const std::vector<Operation>& all = own.ledger().operations();
    if (number < 1 || number > all.size()) {
      fail(Status::kUsage, "number is %llu, the journal has operations 1 to %zu",
           static_cast<unsigned long long>(number), all.size());
    }
    write_struct(told(all[static_cast<size_t>(number) - 1], own.ledger(), own), *operation);
  });
}

onceover_status onceover_corrections_propose(onceover_corrections* corrections, onceover_session* session,
                                             const onceover_candidate* candidate, uint64_t* number) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    required(number, "number");
    const onceover_candidate given = read_struct(candidate, "candidate");
    const Turn turn(required(session, "session")->busy, "session");
    require_same_package(session->session, own);
    std::vector<float> rows;
    Candidate found = session->session.candidate(rows);
    found.name = text_of(given.name);
    found.note = text_of(given.note);
    std::copy(std::begin(given.image_sha256), std::end(given.image_sha256), found.image.begin());
    const size_t dims = session->session.config().embedding_dim;
    const uint32_t product = session->session.last().product;
    *number = own.propose(product, found, {rows.data(), found.patches.size(), dims}, given.time);
  });
}

onceover_status onceover_corrections_confirm(onceover_corrections* corrections, const uint64_t* numbers, size_t count,
                                             const char* text, int64_t time) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    own.confirm(numbers_of(numbers, count, "numbers"), text_of(text), time);
  });
}

onceover_status onceover_corrections_reject(onceover_corrections* corrections, const uint64_t* numbers, size_t count,
                                            const char* text, int64_t time) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    own.reject(numbers_of(numbers, count, "numbers"), text_of(text), time);
  });
}

onceover_status onceover_corrections_remove(onceover_corrections* corrections, const uint64_t* rows, size_t count,
                                            const char* text, int64_t time) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    if (own.product_count() > 1) {
      fail(Status::kUsage, "rows are one of %u products' own; call onceover_corrections_remove_from",
           own.product_count());
    }
    own.remove(0, numbers_of(rows, count, "rows"), text_of(text), time);
  });
}

onceover_status onceover_corrections_remove_from(onceover_corrections* corrections, uint32_t product,
                                                 const uint64_t* rows, size_t count, const char* text, int64_t time) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    own.remove(product, numbers_of(rows, count, "rows"), text_of(text), time);
  });
}

onceover_status onceover_corrections_undo(onceover_corrections* corrections, const char* text, int64_t time,
                                          uint64_t* number) {
  return with_corrections(__func__, corrections, [&](Corrections& own) {
    const uint64_t undone = own.undo(text_of(text), time);
    if (number != nullptr) *number = undone;
  });
}

onceover_status onceover_session_apply_corrections(onceover_session* session, onceover_corrections* corrections,
                                                   uint32_t* state) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    const Turn turn(required(session, "session")->busy, "session");
    require_same_package(session->session, own);
    Session& applying = session->session;
    applying.apply(own.changes(), own.max_added_rows());
    if (state == nullptr) return;
    *state = 0;
    for (size_t i = 0; i < applying.product_count(); ++i) {
      *state = std::max(*state, static_cast<uint32_t>(applying.product(i).applied().state));
    }
  });
}

onceover_status onceover_session_calibration_state(onceover_session* session, uint32_t product, uint32_t* state) {
  return guarded(__func__, [&] {
    const Turn turn(required(session, "session")->busy, "session");
    required(state, "state");
    check_product(product, session->session.product_count());
    *state = static_cast<uint32_t>(session->session.product(product).applied().state);
  });
}

onceover_status onceover_corrections_query_memory(onceover_corrections* corrections, uint32_t threads, size_t* bytes) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    required(bytes, "bytes");
    *bytes = corrected_memory_bytes(own.package(), own.max_added_rows(), threads == 0 ? 1 : threads);
  });
}

onceover_status onceover_corrections_compact(onceover_corrections* corrections, const char* output,
                                             const onceover_compact_options* options, uint8_t package_id[32]) {
  return with_corrections(__func__, corrections, [&](const Corrections& own) {
    const onceover_compact_options given = read_struct(options, "options");
    const onceover_session_options session = read_session_options(given.session);
    std::optional<Arena> arena;  // the second session begins anew in the memory of the first
    CompactOptions made;
    made.open_session = [&](std::shared_ptr<const Package> package) {
      arena.emplace(session.arena, session.arena_bytes);
      return std::make_unique<Session>(std::move(package), session_options(session, *arena));
    };
    made.progress = [&](const char* what, size_t done, size_t total) {
      if (given.progress != nullptr) given.progress(given.progress_context, what, done, total);
      if (given.is_cancelled == nullptr || given.is_cancelled(given.progress_context) == 0) return;
      fail(Status::kCancelled, "stopped by the application at %s %zu of %zu; nothing was written", what, done, total);
    };
    const Digest id = compact(own, required(output, "output"), made);
    if (package_id != nullptr) std::copy(id.begin(), id.end(), package_id);
  });
}
