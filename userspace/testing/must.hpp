// SPDX-License-Identifier: GPL-2.0-only
//
// For steps of a test that it cannot go on without.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/result.hpp"
#include "core/rule.hpp"

namespace netctl::testing {

/// The value; an error ends the test program with its words, and `context`.
template <class T> T must(Result<T> result, const std::string& context = "") {
    if (!result.has_value()) {
        ADD_FAILURE() << result.error().what << "\n" << context;
        std::abort();
    }
    return std::move(result).value();
}

inline std::vector<Rule> must_parse(Hook hook, std::initializer_list<std::string> texts) {
    std::vector<Rule> rules;
    for (const std::string& text : texts)
        rules.push_back(must(parse_rule(text, hook), text));
    return rules;
}

} // namespace netctl::testing
