// SPDX-License-Identifier: GPL-2.0-only
//
// The commands that every packet filter has besides `rule`: how status, log and simulation are
// shown, and the options that they and `attach` take.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

#include "core/command.hpp"
#include "datapath/filter_point.hpp"

namespace netctl::datapath {

/// `--default`, `--on-unparsed`, `--log-rate` and `--rules`, as far as they are given.
Result<FilterSettings> settings_of(const Arguments& arguments, Hook hook);
/// The options of attach: the hook's own, then these. The first of the verdicts that the hook can give
/// is the default.
std::vector<Option> attach_options(std::vector<Option> own,
                                   const std::vector<std::string>& verdicts);

using OpenPoint = std::function<std::unique_ptr<FilterPoint>(const Arguments&, const Context&)>;
/// The command `set`, which changes settings of a point that is attached.
Command set_command(Hook hook, const std::vector<Positional>& place, const OpenPoint& open,
                    const std::vector<std::string>& verdicts);
/// `--yes`, of all that changes what becomes of packets.
Option dare_option();

/// What status shows of a point whose settings cannot be read; empty for all others. `command` is the
/// feature's, `place` its arguments that name the point.
Text trouble_text(const FilterStatus& status, const std::string& command, const std::string& place);

/// What status has for every hook, and `verdicts` those that this one can give. `place` comes first:
/// how the hook names the point.
Json status_json(const FilterStatus& status, Json place,
                 std::initializer_list<nc_verdict> verdicts);
/// The lines below the first, each indented; `what_to_do` is the command that attaches anew.
Text status_text(const FilterStatus& status, std::initializer_list<nc_verdict> verdicts,
                 const std::string& what_to_do);

/// Frames with an Ethernet header, or without any link header.
enum class FrameForm { ethernet, ip };

using Simulate = std::function<Result<>(const nc_told&, const NextFrame&, const HandleSimulated&)>;
/// The handler of `simulate FILE`, with the options of `simulate_options`.
Result<int> print_simulation(const Arguments& arguments, Context& context, FrameForm form,
                             const Simulate& simulate);
/// What there is for packets that are made up or come from a file, by options named after keys: `--socket`, `--ct`.
std::vector<Option> told_options();
nc_told said_options(const Arguments& arguments);
/// The keys, of those in `looked_at` (bits 1 << Key), that such an option could say and none does.
std::vector<Key> untold(const Arguments& arguments, std::uint32_t looked_at);
/// `verdicts` are those that the hook can give: what --expect takes.
std::vector<Option> simulate_options(std::initializer_list<nc_verdict> verdicts);

} // namespace netctl::datapath
