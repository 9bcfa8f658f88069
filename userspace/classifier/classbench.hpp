// SPDX-License-Identifier: GPL-2.0-only
//
// ClassBench filter sets (D. E. Taylor, J. S. Turner: ClassBench, IEEE/ACM Transactions on
// Networking 15(3), 2007), as much research on classifiers uses them.
#pragma once

#include <string_view>
#include <vector>

#include "core/rule.hpp"

namespace netctl::classifier {

/// Parses a filter set: a rule a line,
/// `@SRC/LEN  DST/LEN  SPORT_LOW : SPORT_HIGH  DPORT_LOW : DPORT_HIGH  PROTO/MASK [FLAGS/MASK]`,
/// PROTO and its mask in hexadecimal. A range of all ports and a mask of 0 ask nothing; prefixes of
/// length 0 are IPv4. FLAGS are left out, as all published results do. Every rule has `action`.
/// Errors name the line; `source` is the file's name for messages.
Result<std::vector<Rule>> parse_classbench(std::string_view text, std::string_view source,
                                           ActionKind action);

} // namespace netctl::classifier
