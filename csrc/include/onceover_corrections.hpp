// onceover_corrections.h for C++11 and later: a journal that closes itself, and StatusError where a call fails; what is
// said there and in onceover.hpp holds here. Header only, over the C ABI.
//
//   onceover::CorrectionJournal journal(package, "part.onceover.journal");
//   const uint64_t candidate = journal.propose(session, "part_17.png", "a dot of paint");  // of the last run, flagged
//   journal.confirm({candidate}, "R., line 3", std::time(nullptr));
//   journal.apply_to(session);                                                             // from the next run on
//   journal.compact("part_2.onceover", options);                                           // the same as a new package
#pragma once

#include <array>
#include <exception>
#include <functional>

#include "onceover.hpp"
#include "onceover_corrections.h"

namespace onceover {

// onceover_operation with texts and numbers of its own, which stay when the journal changes.
struct JournalOperation {
  uint32_t type = 0;  // onceover_operation_type
  int64_t time = 0;
  uint64_t undone_by = 0;
  std::string text;
  std::vector<uint64_t> named;
  uint32_t standing = 0;  // of a candidate, as are: onceover_standing
  uint32_t row_count = 0, first_row = 0;
  float score = 0, threshold = 0;
  uint32_t product = 0;  // of propose and remove: whose memory bank
};

class CorrectionJournal {
 public:
  // done of total steps of what. What it throws stops the compaction, and comes out of `compact`.
  using Progress = std::function<void(const char* what, size_t done, size_t total)>;

  // max_added_rows: of a new journal, of each product; 0: the default.
  CorrectionJournal(const PackageFile& package, const std::string& path, uint32_t max_added_rows = 0) {
    onceover_corrections_options options = sized<onceover_corrections_options>();
    options.max_added_rows = max_added_rows;
    onceover_corrections* opened = nullptr;
    StatusError::check(onceover_corrections_open(package.get(), path.c_str(), &options, &opened));
    handle_.reset(opened);
  }

  void refresh() { StatusError::check(onceover_corrections_refresh(get())); }
  onceover_corrections_info info() {
    onceover_corrections_info told = sized<onceover_corrections_info>();
    StatusError::check(onceover_corrections_describe(get(), &told));
    return told;
  }
  // number: as of the package; 0 is the only one of most.
  onceover_corrected_product product(uint32_t number) {
    onceover_corrected_product told = sized<onceover_corrected_product>();
    StatusError::check(onceover_corrections_describe_product(get(), number, &told));
    return told;
  }
  // number: 1 to info().operations.
  JournalOperation operation(uint64_t number) {
    onceover_operation told = sized<onceover_operation>();
    StatusError::check(onceover_corrections_operation(get(), number, &told));
    JournalOperation made;
    made.type = told.type;
    made.time = told.time;
    made.undone_by = told.undone_by;
    if (told.text_bytes > 0) made.text.assign(told.text, told.text_bytes);
    made.named.assign(told.named, told.named + told.named_count);
    made.standing = told.standing;
    made.row_count = told.row_count;
    made.first_row = told.first_row;
    made.score = told.score;
    made.threshold = told.threshold;
    made.product = told.product;
    return made;
  }
  std::vector<JournalOperation> operations() {
    std::vector<JournalOperation> all;
    const uint64_t count = info().operations;
    for (uint64_t number = 1; number <= count; ++number) all.push_back(operation(number));
    return all;
  }

  // → the candidate's number.
  uint64_t propose(InspectionSession& session, const std::string& name = "", const std::string& note = "",
                   int64_t time = 0) {
    onceover_candidate candidate = sized<onceover_candidate>();
    candidate.name = name.empty() ? nullptr : name.c_str();
    candidate.note = note.empty() ? nullptr : note.c_str();
    candidate.time = time;
    return propose(session, candidate);
  }
  // With all that the C struct takes.
  uint64_t propose(InspectionSession& session, const onceover_candidate& candidate) {
    uint64_t number = 0;
    StatusError::check(onceover_corrections_propose(get(), session.get(), &candidate, &number));
    return number;
  }
  void confirm(const std::vector<uint64_t>& candidates, const std::string& text = "", int64_t time = 0) {
    StatusError::check(onceover_corrections_confirm(get(), candidates.data(), candidates.size(), text.c_str(), time));
  }
  void reject(const std::vector<uint64_t>& candidates, const std::string& text = "", int64_t time = 0) {
    StatusError::check(onceover_corrections_reject(get(), candidates.data(), candidates.size(), text.c_str(), time));
  }
  void remove(const std::vector<uint64_t>& rows, const std::string& text = "", int64_t time = 0) {
    StatusError::check(onceover_corrections_remove(get(), rows.data(), rows.size(), text.c_str(), time));
  }
  // The same of one of several products.
  void remove_from(uint32_t product, const std::vector<uint64_t>& rows, const std::string& text = "",
                   int64_t time = 0) {
    StatusError::check(onceover_corrections_remove_from(get(), product, rows.data(), rows.size(), text.c_str(), time));
  }
  // → the number of the operation that was taken back.
  uint64_t undo(const std::string& text = "", int64_t time = 0) {
    uint64_t number = 0;
    StatusError::check(onceover_corrections_undo(get(), text.c_str(), time, &number));
    return number;
  }

  // → what the thresholds are worth now; of several products the highest.
  onceover_calibration_state apply_to(InspectionSession& session) {
    uint32_t state = 0;
    StatusError::check(onceover_session_apply_corrections(session.get(), get(), &state));
    return static_cast<onceover_calibration_state>(state);
  }
  // What those of one product are worth in a session.
  static onceover_calibration_state calibration_state(InspectionSession& session, uint32_t product) {
    uint32_t state = 0;
    StatusError::check(onceover_session_calibration_state(session.get(), product, &state));
    return static_cast<onceover_calibration_state>(state);
  }
  // Bytes of arena or limit that apply_to takes beside session_memory().
  size_t memory(uint32_t threads = 1) {
    size_t bytes = 0;
    StatusError::check(onceover_corrections_query_memory(get(), threads, &bytes));
    return bytes;
  }
  // → the id of the new package. options: of the two sessions that prove it.
  std::array<uint8_t, 32> compact(const std::string& output, const InspectionOptions& options,
                                  const Progress& progress = Progress()) {
    Watch watch{&progress, nullptr};
    std::array<uint8_t, 32> id = {};
    onceover_status status = ONCEOVER_OK;
    options.pass_to([&](const onceover_session_options& passed) {
      onceover_compact_options given = sized<onceover_compact_options>();
      given.session = &passed;
      given.progress = progress ? Watch::tell : nullptr;
      given.progress_context = &watch;
      given.is_cancelled = Watch::is_cancelled;
      status = onceover_corrections_compact(get(), output.c_str(), &given, id.data());
      return ONCEOVER_OK;
    });
    if (watch.thrown) std::rethrow_exception(watch.thrown);
    StatusError::check(status);
    return id;
  }
  onceover_corrections* get() noexcept { return handle_.get(); }

 private:
  // No exception passes through the library: it is kept, the compaction stopped, and thrown again.
  struct Watch {
    const Progress* progress;
    std::exception_ptr thrown;

    static void tell(void* context, const char* what, size_t done, size_t total) {
      Watch& self = *static_cast<Watch*>(context);
      try {
        (*self.progress)(what, done, total);
      } catch (...) {
        self.thrown = std::current_exception();
      }
    }
    static int32_t is_cancelled(void* context) { return static_cast<Watch*>(context)->thrown ? 1 : 0; }
  };
  struct Free {
    void operator()(onceover_corrections* corrections) const { onceover_corrections_free(corrections); }
  };
  std::unique_ptr<onceover_corrections, Free> handle_;
};

}  // namespace onceover
