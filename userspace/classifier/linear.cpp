// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/linear.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "netctl/abi/classify.h"

namespace netctl::classifier {

namespace {

static_assert(int{frag_none} == NC_FRAG_NONE && int{frag_first} == NC_FRAG_FIRST &&
              int{frag_tiny} == NC_FRAG_TINY && int{frag_later} == NC_FRAG_LATER);
static_assert(int{socket_none} == NC_SOCKET_NONE && int{socket_listening} == NC_SOCKET_LISTENING &&
              int{socket_established} == NC_SOCKET_ESTABLISHED &&
              int{socket_related} == NC_SOCKET_RELATED);
static_assert(int{ct_new} == NC_CT_NEW && int{ct_established} == NC_CT_ESTABLISHED &&
              int{ct_related} == NC_CT_RELATED && int{ct_invalid} == NC_CT_INVALID &&
              int{ct_untracked} == NC_CT_UNTRACKED);

class LinearCompiler {
  public:
    explicit LinearCompiler(std::span<const SetUse> set_uses) : set_uses_(set_uses) {}

    Result<Compiled> compile(std::span<const Rule> rules) {
        for (std::size_t i = 0; i < rules.size(); i++)
            NETCTL_TRY(add(rules[i], static_cast<std::uint32_t>(i)));

        Compiled compiled;
        compiled.engine = "linear";
        compiled.constants.push_back({"n_linear", {static_cast<std::uint32_t>(tests_.size())}});
        if (tests_.empty())
            tests_.emplace_back(); // no map holds nothing
        compiled.tables.push_back({"linear", {}});
        compiled.tables.back().bytes.resize(tests_.size() * sizeof(nc_linear));
        std::memcpy(compiled.tables.back().bytes.data(), tests_.data(),
                    compiled.tables.back().bytes.size());
        compiled.set_uses.assign(set_uses_.begin(), set_uses_.end());
        return compiled;
    }

  private:
    Result<> add(const Rule& rule, std::uint32_t position) {
        const std::size_t first = tests_.size();
        if (rule.matches.empty())
            add_group({test(NC_LINEAR_ALWAYS, Key::src)}, 0, 0);
        for (const Match& match : rule.matches)
            NETCTL_TRY(add(match));
        if (tests_.size() > NC_LINEAR_MAX)
            return Error::usage(
                fmt::format("rule {} takes the rules over what the linear classifier holds",
                            position + 1),
                fmt::format("it holds {} addresses, ranges and other values; use a set for long "
                            "lists",
                            NC_LINEAR_MAX));

        const auto end = static_cast<std::uint32_t>(tests_.size());
        for (std::size_t i = first; i < tests_.size(); i++) {
            tests_[i].next = end;
            tests_[i].position = position;
            if (tests_[i].then == end)
                tests_[i].flags |= NC_LINEAR_RULE;
        }
        return {};
    }

    Result<> add(const Match& match) {
        std::vector<nc_linear> tests;
        // Addresses and `vlan none` are told apart below.
        std::uint32_t present = info(match.key).part;
        if (!match.set.empty()) {
            tests.push_back(test(NC_LINEAR_SET, match.key));
            const auto use = std::ranges::find(set_uses_, SetUse{match.key, match.set});
            tests.back().set = static_cast<std::uint8_t>(use - set_uses_.begin());
        } else if (match.masked) {
            tests.push_back(test(NC_LINEAR_MASKED, match.key));
            tests.back().number.low = match.masked->value;
            tests.back().number.high = match.masked->mask;
        } else if (match.key == Key::src || match.key == Key::dst) {
            present = 0;
            for (const Prefix& prefix : match.prefixes) {
                tests.push_back(prefix_test(match.key, prefix));
                present |= tests.back().bits;
            }
        } else {
            if (match.absent) {
                tests.push_back(test(NC_LINEAR_ABSENT, match.key));
                tests.back().bits = present;
                present = 0;
            }
            for (const Range& range : match.ranges) {
                tests.push_back(test(NC_LINEAR_RANGE, match.key));
                tests.back().number.low = range.low;
                tests.back().number.high = range.high;
            }
        }
        if (tests.empty())
            return Error::usage(fmt::format("'{}' has no value", to_string(match.key)));
        add_group(std::move(tests), present, match.negated ? NC_LINEAR_NOT : 0);
        return {};
    }

    void add_group(std::vector<nc_linear> tests, std::uint32_t present, unsigned flags) {
        const auto then = static_cast<std::uint32_t>(tests_.size() + tests.size());
        for (nc_linear& test : tests) {
            test.then = then;
            test.present = present;
            test.flags = static_cast<__u8>(flags);
        }
        tests.back().flags |= NC_LINEAR_LAST;
        tests_.insert(tests_.end(), tests.begin(), tests.end());
    }

    static nc_linear test(nc_linear_test kind, Key key) {
        nc_linear test{};
        test.test = static_cast<__u8>(kind);
        test.field = static_cast<__u8>(key);
        return test;
    }

    static nc_linear prefix_test(Key key, const Prefix& prefix) {
        nc_linear test = LinearCompiler::test(NC_LINEAR_PREFIX, key);
        test.bits = prefix.address.family == Family::ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6;
        std::uint8_t mask[16] = {};
        for (unsigned bit = 0; bit < prefix.length; bit++)
            mask[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
        std::memcpy(test.prefix.value, prefix.address.bytes.data(), sizeof test.prefix.value);
        std::memcpy(test.prefix.mask, mask, sizeof test.prefix.mask);
        return test;
    }

    std::vector<nc_linear> tests_;
    std::span<const SetUse> set_uses_;
};

} // namespace

Result<Compiled> compile_linear(std::span<const Rule> rules, std::span<const SetUse> set_uses) {
    return LinearCompiler(set_uses).compile(rules);
}

} // namespace netctl::classifier
