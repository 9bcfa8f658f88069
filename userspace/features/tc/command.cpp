// SPDX-License-Identifier: GPL-2.0-only
#include <optional>

#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "core/command.hpp"
#include "core/json.hpp"
#include "datapath/capture_command.hpp"
#include "datapath/filter_command.hpp"
#include "datapath/log_command.hpp"
#include "datapath/rule_test_command.hpp"
#include "features/tc/controller.hpp"

namespace netctl::tc {

namespace {

using Count = Positional::Count;
using Where = bpf::TcxPlace::Where;

Controller controller(const Context& context) {
    return Controller(context.root, context.netns);
}

Direction direction_of(const Arguments& arguments) {
    return arguments["DIRECTION"] == "egress" ? Direction::egress : Direction::ingress;
}

/// The point that the command line names.
std::unique_ptr<datapath::FilterPoint> point_of(const Arguments& arguments,
                                                const Context& context) {
    auto point = controller(context).point(arguments["IFACE"], direction_of(arguments));
    if (arguments.has("yes"))
        point->dare();
    return point;
}

Result<std::optional<Place>> place_option(const Arguments& arguments) {
    struct Choice {
        const char* option;
        Where where;
    };
    std::optional<Place> place;
    for (const Choice& choice : {Choice{"first", Where::first}, Choice{"last", Where::last},
                                 Choice{"before", Where::before}, Choice{"after", Where::after}}) {
        if (!arguments.has(choice.option))
            continue;
        if (place)
            return Error::usage("a classifier has one place",
                                "give one of --first, --last, --before and --after");
        place = Place{choice.where, arguments.get(choice.option)};
    }
    return place;
}

Result<int> attach(const Arguments& arguments, Context& context) {
    AttachRequest request;
    request.interface = arguments["IFACE"];
    request.direction = direction_of(arguments);
    const std::string mode = arguments.get("mode", "auto");
    if (mode != "auto")
        request.mode = mode == "tcx" ? Mode::tcx : Mode::clsact;
    request.place = NETCTL_TRY(place_option(arguments));
    if (arguments.has("priority")) {
        if (request.place)
            return Error::usage("--priority tells the place already",
                                "leave out --first, --last, --before and --after");
        request.priority =
            static_cast<std::uint32_t>(NETCTL_TRY(arguments.number("priority", 0, 1, 65535)));
    }
    request.dared = arguments.has("yes");
    request.settings = NETCTL_TRY(datapath::settings_of(arguments, Hook::tc));
    request.setup_fq = arguments.has("setup-fq");
    const AttachReport report = NETCTL_TRY(controller(context).attach(request));
    context.out.notes(report.notes);
    context.out.document({{"interface", request.interface},
                          {"direction", to_string(request.direction)},
                          {"mode", to_string(report.mode)},
                          {"program_id", report.program_id},
                          {"rule_count", report.rules}},
                         Text::format("{} {}: attached through {}, {} rules\n", request.interface,
                                      to_string(request.direction), to_string(report.mode),
                                      report.rules));
    return 0;
}

Result<int> detach(const Arguments& arguments, Context& context) {
    const DetachReport report =
        NETCTL_TRY(controller(context).detach(arguments["IFACE"], direction_of(arguments)));
    context.out.notes(report.notes);
    context.out.done(fmt::format("{} {}: detached", arguments["IFACE"], arguments["DIRECTION"]));
    return 0;
}

constexpr std::initializer_list<nc_verdict> verdicts{
    NC_VERDICT_PASS, NC_VERDICT_DROP, NC_VERDICT_REJECT, NC_VERDICT_REDIRECT, NC_VERDICT_NEXT};

bool is_own(const Status& status, const sys::ClsactFilter& filter) {
    return status.mode == Mode::clsact && filter.priority == status.settings.tc_priority &&
           filter.handle == status.settings.tc_handle;
}

std::string rates_of(const Status& status) {
    return status.settings.flags & NC_POINT_DEPARTURE ? "departure" : "drop";
}

Json status_json(const Status& status) {
    Json chain = Json::array();
    for (const bpf::TcxProgram& program : status.chain)
        chain.push_back({{"id", program.id},
                         {"name", program.name},
                         {"link_id", program.link_id},
                         {"own", program.id == status.program_id}});
    Json filters = Json::array();
    for (const sys::ClsactFilter& filter : status.filters)
        filters.push_back({{"kind", filter.kind},
                           {"priority", filter.priority},
                           {"handle", filter.handle},
                           {"own", is_own(status, filter)}});
    Json json = datapath::status_json(status,
                                      {{"interface", status.interface},
                                       {"direction", to_string(status.direction)},
                                       {"netns", status.netns},
                                       {"state", to_string(status.presence)},
                                       {"mode", to_string(status.mode)}},
                                      verdicts);
    if (!reads_abi(status.settings.abi_version))
        return json;
    json["over_rate"] = status.stats.over_rate;
    json["mirror_failed"] = status.stats.mirror_failed;
    json["rewrite_failed"] = status.stats.rewrite_failed;
    json["rates"] = rates_of(status);
    json["qdisc"] = status.direction == Direction::egress ? Json(status.qdisc) : Json();
    json["tcx"] = chain;
    json["clsact"] = filters;
    return json;
}

/// Who classifies besides us, in the order in which they run.
Text neighbours(const Status& status) {
    Text tcx, clsact;
    for (const bpf::TcxProgram& program : status.chain)
        tcx += Text::format(" {}", program.id == status.program_id
                                       ? "[this]"
                                       : fmt::format("{} (id {})", program.name, program.id));
    for (const sys::ClsactFilter& filter : status.filters)
        clsact +=
            Text::format(" {}", is_own(status, filter)
                                    ? fmt::format("[this, priority {}]", filter.priority)
                                    : fmt::format("{} (priority {}, handle {:#x})", filter.kind,
                                                  filter.priority, filter.handle));
    Text text;
    if (status.chain.size() > 1 || (!tcx.empty() && status.mode == Mode::clsact))
        text += Text::format("  tcx, in this order:{}\n", tcx);
    if (!clsact.empty())
        text += Text::format("  clsact, in this order:{}\n", clsact);
    return text;
}

Text status_text(const Status& status) {
    Text unreadable = datapath::trouble_text(
        status, "netctl tc", fmt::format("{} {}", status.interface, to_string(status.direction)));
    if (!unreadable.empty())
        return unreadable;
    Text text = Text::format("{} {}{}: {}, default {}, unparsed {}, program {}, generation {}\n",
                             status.interface, to_string(status.direction),
                             status.netns.empty() ? "" : fmt::format(" (netns {})", status.netns),
                             to_string(status.mode),
                             to_string(static_cast<nc_verdict>(status.settings.default_verdict)),
                             to_string(static_cast<nc_verdict>(status.settings.unparsed_verdict)),
                             status.program_id, status.settings.generation);
    text += neighbours(status);
    if (status.fq_missing)
        text +=
            Text::format("  rates count on the qdisc fq, and the interface has {}: what leaves too "
                         "early is dropped, with bursts of half a second; the next change of "
                         "rules sees to that\n",
                         status.qdisc);
    else if (status.settings.flags & NC_POINT_DEPARTURE)
        text += Text::format("  rates delay packets, through the qdisc fq\n");
    return text + datapath::status_text(status, verdicts,
                                        fmt::format("netctl tc attach {} {}", status.interface,
                                                    to_string(status.direction)));
}

Result<int> status(const Arguments& arguments, Context& context) {
    if (arguments.given("DIRECTION")) {
        const Status one =
            NETCTL_TRY(controller(context).status(arguments["IFACE"], direction_of(arguments)));
        context.out.document(status_json(one), status_text(one));
        return 0;
    }
    Json json = Json::array();
    Text text;
    for (const Status& one : NETCTL_TRY(controller(context).status_of_all(arguments["IFACE"]))) {
        json.push_back(status_json(one));
        text += status_text(one);
    }
    context.out.document(json,
                         text.empty() ? Text::format("no tc classifier is attached\n") : text);
    return 0;
}

Result<datapath::FrameForm> form_of(const Arguments& arguments, const Context& context) {
    const bool ether =
        NETCTL_TRY(controller(context).has_ether(arguments["IFACE"], direction_of(arguments)));
    return ether ? datapath::FrameForm::ethernet : datapath::FrameForm::ip;
}

Result<int> log(const Arguments& arguments, Context& context) {
    const datapath::FrameForm form = NETCTL_TRY(form_of(arguments, context));
    return datapath::print_log(arguments, context, form, *point_of(arguments, context));
}

Result<int> simulate(const Arguments& arguments, Context& context) {
    const datapath::FrameForm form = NETCTL_TRY(form_of(arguments, context));
    return datapath::print_simulation(
        arguments, context, form,
        [&](const nc_told& told, const datapath::NextFrame& next,
            const datapath::HandleSimulated& handle) {
            return point_of(arguments, context)->simulate(told, next, handle);
        });
}

Command capture(const Positional& direction) {
    return datapath::capture_command({{"IFACE"}, direction}, point_of,
                                     [](const Arguments& arguments, const Context& context,
                                        const datapath::CaptureRequest& request) {
                                         return controller(context).capture(
                                             arguments["IFACE"], direction_of(arguments), request);
                                     });
}

Command rule(const Positional& direction) {
    Command command = datapath::rule_command(Hook::tc, {{"IFACE"}, direction}, point_of, {},
                                             {datapath::dare_option()});
    command.children.push_back(
        datapath::rule_test_command(Hook::tc, {{"IFACE"}, direction}, point_of, verdicts));
    return command;
}

} // namespace

const Command& command() {
    const Positional direction{"DIRECTION", Count::one, {"ingress", "egress"}};
    static const Command tc{
        .name = "tc",
        .summary = "classify packets on their way in and out of the network stack",
        .children = {
            {.name = "attach",
             .summary = "classify what comes in or goes out, at first with no rules",
             .description = "An interface that vanished and returned gets its old rules again.",
             .positionals = {{"IFACE"}, direction},
             .options = datapath::attach_options(
                 {{"mode",
                   "auto|tcx|clsact",
                   "how to attach: through tcx, as a filter of the qdisc clsact, or tcx if the "
                   "kernel has it (default: auto)",
                   {"auto", "tcx", "clsact"}},
                  {"first", "", "run before all others that are attached now", {}},
                  {"last", "", "run after them (default)", {}},
                  {"before", "ID|NAME", "tcx: run just before this program", {}},
                  {"after", "ID|NAME", "tcx: run just after this program", {}},
                  {"priority", "N", "clsact: the filter's priority, lower ones run first", {}},
                  {"setup-fq",
                   "",
                   "egress: put the qdisc fq on the interface, so that rates delay packets "
                   "instead of dropping them",
                   {}}},
                 {"next", "pass", "drop"}),
             .run = attach},
            {.name = "detach",
             .summary = "stop classifying and forget the rules",
             .positionals = {{"IFACE"}, direction},
             .run = detach},
            datapath::set_command(Hook::tc, {{"IFACE"}, direction}, point_of,
                                  {"next", "pass", "drop"}),
            {.name = "status",
             .summary =
                 "show one classifier, those of an interface, or all, with counters and rules",
             .positionals = {{"IFACE", Count::optional},
                             {"DIRECTION", Count::optional, {"ingress", "egress"}}},
             .run = status},
            rule(direction),
            {.name = "log",
             .summary = "print the packets that rules with `log` match, as they come",
             .positionals = {{"IFACE"}, direction},
             .options = datapath::log_options(),
             .run = log},
            capture(direction),
            {.name = "simulate",
             .summary = "tell what the rules would do with the packets of a capture file",
             .description = "Runs the program in the kernel over each frame, without touching "
                            "traffic or counters; limits and rates count as not reached.",
             .positionals = {{"IFACE"}, direction, {"FILE"}},
             .options = datapath::simulate_options(verdicts),
             .run = simulate},
        }};
    return tc;
}

} // namespace netctl::tc
