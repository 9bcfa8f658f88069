// SPDX-License-Identifier: GPL-2.0-only
#include <optional>

#include <fmt/format.h>

#include "core/command.hpp"
#include "core/json.hpp"
#include "datapath/capture_command.hpp"
#include "datapath/filter_command.hpp"
#include "datapath/log_command.hpp"
#include "datapath/rule_test_command.hpp"
#include "features/xdp/controller.hpp"

namespace netctl::xdp {

namespace {

using Count = Positional::Count;

Controller controller(const Context& context) {
    return Controller(context.root, context.netns);
}

/// The point that the command line names.
std::unique_ptr<datapath::FilterPoint> point_of(const Arguments& arguments,
                                                const Context& context) {
    auto point = controller(context).point(arguments["IFACE"]);
    if (arguments.has("yes"))
        point->dare();
    return point;
}

Result<int> attach(const Arguments& arguments, Context& context) {
    AttachRequest request;
    request.interface = arguments["IFACE"];
    const std::string mode = arguments.get("mode", "auto");
    request.mode = mode == "native"    ? ModeChoice::native
                   : mode == "generic" ? ModeChoice::generic
                                       : ModeChoice::automatic;
    request.dared = arguments.has("yes");
    request.settings = NETCTL_TRY(datapath::settings_of(arguments, Hook::xdp));
    request.replace = arguments.has("replace");
    const AttachReport report = NETCTL_TRY(controller(context).attach(request));
    context.out.notes(report.notes);
    context.out.document({{"interface", request.interface},
                          {"mode", to_string(report.mode)},
                          {"program_id", report.program_id},
                          {"rule_count", report.rules}},
                         Text::format("{}: attached in {} mode, {} rules\n", request.interface,
                                      to_string(report.mode), report.rules));
    return 0;
}

Result<int> detach(const Arguments& arguments, Context& context) {
    context.out.notes(NETCTL_TRY(controller(context).detach(arguments["IFACE"])));
    context.out.done(fmt::format("{}: detached", arguments["IFACE"]));
    return 0;
}

constexpr std::initializer_list<nc_verdict> verdicts{NC_VERDICT_PASS,     NC_VERDICT_DROP,
                                                     NC_VERDICT_REJECT,   NC_VERDICT_TX,
                                                     NC_VERDICT_REDIRECT, NC_VERDICT_SYNCOOKIE};

Json status_json(const Status& status) {
    return datapath::status_json(status,
                                 {{"interface", status.interface},
                                  {"netns", status.netns},
                                  {"state", to_string(status.presence)},
                                  {"mode", to_string(status.mode)},
                                  {"syncookie",
                                   {{"answered", status.syncookies.answered},
                                    {"refused", status.syncookies.refused},
                                    {"failed", status.syncookies.failed},
                                    {"dropped", status.syncookies.dropped}}}},
                                 verdicts);
}

Text status_text(const Status& status) {
    Text unreadable = datapath::trouble_text(status, "netctl xdp", status.interface);
    if (!unreadable.empty())
        return unreadable;
    return Text::format("{}{}: {} mode, default {}, unparsed {}, program {}, generation {}\n",
                        status.interface,
                        status.netns.empty() ? "" : fmt::format(" (netns {})", status.netns),
                        to_string(status.mode),
                        to_string(static_cast<nc_verdict>(status.settings.default_verdict)),
                        to_string(static_cast<nc_verdict>(status.settings.unparsed_verdict)),
                        status.program_id, status.settings.generation) +
           datapath::status_text(status, verdicts, "netctl xdp attach " + status.interface);
}

Result<int> status(const Arguments& arguments, Context& context) {
    if (arguments.given("IFACE")) {
        const Status one = NETCTL_TRY(controller(context).status(arguments["IFACE"]));
        context.out.document(status_json(one), status_text(one));
        return 0;
    }
    Json json = Json::array();
    Text text;
    for (const Status& one : NETCTL_TRY(controller(context).status_of_all())) {
        json.push_back(status_json(one));
        text += status_text(one);
    }
    context.out.document(json, text.empty() ? Text::format("no XDP filter is attached\n") : text);
    return 0;
}

Result<int> log(const Arguments& arguments, Context& context) {
    return datapath::print_log(arguments, context, datapath::FrameForm::ethernet,
                               *point_of(arguments, context));
}

Result<int> simulate(const Arguments& arguments, Context& context) {
    return datapath::print_simulation(
        arguments, context, datapath::FrameForm::ethernet,
        [&](const nc_told& told, const datapath::NextFrame& next,
            const datapath::HandleSimulated& handle) {
            return point_of(arguments, context)->simulate(told, next, handle);
        });
}

Command capture() {
    return datapath::capture_command({{"IFACE"}}, point_of,
                                     [](const Arguments& arguments, const Context& context,
                                        const datapath::CaptureRequest& request) {
                                         return controller(context).capture(arguments["IFACE"],
                                                                            request);
                                     });
}

Command rule() {
    Command command =
        datapath::rule_command(Hook::xdp, {{"IFACE"}}, point_of, {}, {datapath::dare_option()});
    command.children.push_back(
        datapath::rule_test_command(Hook::xdp, {{"IFACE"}}, point_of, verdicts));
    return command;
}

} // namespace

const Command& command() {
    static const Command xdp{
        .name = "xdp",
        .summary = "filter packets where the driver hands them over, before the network stack",
        .children = {
            {.name = "attach",
             .summary = "filter an interface, at first with no rules",
             .description =
                 "An interface that vanished and returned is filtered again with its old rules.",
             .positionals = {{"IFACE"}},
             .options = datapath::attach_options(
                 {{"mode",
                   "auto|native|generic",
                   "where to run: in the driver, in the stack, or the first that works (default: "
                   "auto)",
                   {"auto", "native", "generic"}},
                  {"replace", "", "take the interface from another XDP program", {}}},
                 {"pass", "drop"}),
             .run = attach},
            {.name = "detach",
             .summary = "stop filtering an interface and forget its rules",
             .positionals = {{"IFACE"}},
             .run = detach},
            datapath::set_command(Hook::xdp, {{"IFACE"}}, point_of, {"pass", "drop"}),
            {.name = "status",
             .summary = "show one filtered interface, or all, with counters and rules",
             .positionals = {{"IFACE", Count::optional}},
             .run = status},
            rule(),
            {.name = "log",
             .summary = "print the packets that rules with `log` match, as they come",
             .positionals = {{"IFACE"}},
             .options = datapath::log_options(),
             .run = log},
            capture(),
            {.name = "simulate",
             .summary = "tell what the rules would do with the packets of a capture file",
             .description = "Runs the interface's program in the kernel over each frame, without "
                            "touching traffic or counters; limits count as not reached.",
             .positionals = {{"IFACE"}, {"FILE"}},
             .options = datapath::simulate_options(verdicts),
             .run = simulate},
        }};
    return xdp;
}

} // namespace netctl::xdp
