#!/bin/sh
# c_api_exports.sh NM LIBRARY HEADER: the library exports every function of the header, and nothing else.
set -eu
exported=$("$1" -D --defined-only "$2" | awk '{print $NF}' | sort)
declared=$(sed -n 's/^ONCEOVER_API .*\(onceover_[a-z_]*\)(.*/\1/p' "$3" | sort)
[ -n "$declared" ] && [ "$exported" = "$declared" ] && exit 0
echo "$2 exports:" "$exported"
echo "$3 declares:" "$declared"
exit 1
