#include "base/finite.h"

#include "base/error.h"

namespace onceover {

void check_finite_rows(MatrixView<const float> rows, const char* what) {
  for (size_t i = 0; i < rows.rows; ++i) {
    if (!all_finite(rows.row(i), rows.columns)) {
      fail(Status::kInput, "%s: row %zu of %zu holds a NaN or infinity; every value must be finite", what, i,
           rows.rows);
    }
  }
}

}  // namespace onceover
