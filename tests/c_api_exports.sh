#!/bin/sh
# c_api_exports.sh NM LIBRARY HEADER...: the library exports every function of the headers, and nothing else.
set -eu
exported=$("$1" -D --defined-only "$2" | awk '{print $NF}' | sort)
library=$2
shift 2
declared=$(sed -n 's/^ONCEOVER_API .*\(onceover_[a-z_]*\)(.*/\1/p' "$@" | sort)
[ -n "$declared" ] && [ "$exported" = "$declared" ] && exit 0
echo "$library exports:" "$exported"
echo "$* declare:" "$declared"
exit 1
