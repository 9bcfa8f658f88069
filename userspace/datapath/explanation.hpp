// SPDX-License-Identifier: GPL-2.0-only
//
// Why rules match and why they do not, rule by rule: what questions tell with `--explain`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "core/rule.hpp"
#include "core/text.hpp"

namespace netctl::datapath {

/// A match of a rule that does not hold.
struct Reason {
    std::string match; ///< "dport 22"
    Json value;        ///< what is there instead; null: nothing
};

class Explanation {
  public:
    /// `subject` is what the rules are asked about, as JSON names it: "packet".
    explicit Explanation(std::string_view subject) : subject_(subject) {}

    /// The rules in their order; without a reason, the rule matches.
    void add(const Rule& rule, const std::vector<Reason>& why_not);

    /// [{"rule_id", "rule_text", "matches", "why_not": [{"match", SUBJECT}]}]
    const Json& json() const { return json_; }
    /// A line a rule.
    const Text& text() const { return text_; }

  private:
    std::string subject_;
    Json json_ = Json::array();
    Text text_;
};

} // namespace netctl::datapath
