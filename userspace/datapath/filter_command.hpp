// SPDX-License-Identifier: GPL-2.0-only
//
// The commands that every packet filter has besides `rule`: how status, log and simulation are
// shown, and the options that they and `attach` take.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>

#include "core/command.hpp"
#include "datapath/filter.hpp"

namespace netctl::datapath {

/// The verdict that an option names; nothing if it was not given.
std::optional<nc_verdict> verdict_option(const Arguments& arguments, const std::string& option);
/// `--log-rate`; nothing if it was not given.
Result<std::optional<std::uint32_t>> log_rate_option(const Arguments& arguments);

/// What status has for every hook, and `verdicts` those that this one can give. `place` comes first:
/// how the hook names the point.
Json status_json(const FilterStatus& status, Json place,
                 std::initializer_list<nc_verdict> verdicts);
/// The lines below the first, each indented; `what_to_do` is the command that attaches anew.
std::string status_text(const FilterStatus& status, std::initializer_list<nc_verdict> verdicts,
                        const std::string& what_to_do);

/// Frames with an Ethernet header, or without any link header.
enum class FrameForm { ethernet, ip };

using Follow = std::function<Result<>(const HandleEvent&, const std::function<bool()>& idle)>;
/// The handler of `log`, with the options of `log_options`.
Result<int> print_log(const Arguments& arguments, Context& context, FrameForm form,
                      const Follow& follow);
std::vector<Option> log_options();

using Simulate = std::function<Result<>(const NextFrame&, const HandleSimulated&)>;
/// The handler of `simulate FILE`, with the options of `simulate_options`.
Result<int> print_simulation(const Arguments& arguments, Context& context, FrameForm form,
                             const Simulate& simulate);
std::vector<Option> simulate_options();

} // namespace netctl::datapath
