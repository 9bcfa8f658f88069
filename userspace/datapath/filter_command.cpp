// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/filter_command.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "classifier/packet.hpp"
#include "classifier/packet_text.hpp"
#include "classifier/reference.hpp"
#include "core/abi_version.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "sys/clock.hpp"
#include "sys/pcap.hpp"
#include "sys/stop.hpp"
#include "sys/text_file.hpp"

namespace netctl::datapath {

namespace {

/// What simulation found, counted by rule or reason.
struct Tally {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::string verdict;
    std::string what;
};

std::string participle(nc_verdict verdict) {
    switch (verdict) {
    case NC_VERDICT_PASS: return "passed";
    case NC_VERDICT_DROP: return "dropped";
    case NC_VERDICT_REJECT: return "rejected";
    case NC_VERDICT_TX: return "sent back";
    case NC_VERDICT_REDIRECT: return "redirected";
    case NC_VERDICT_NEXT: return "left to the next program";
    case NC_VERDICT_SYNCOOKIE: return "under syncookie";
    case NC_VERDICTS: break;
    }
    return "of unknown verdict";
}

using Tallies = std::map<std::pair<std::uint32_t, std::string>, Tally>;

void print_tallies(const Tallies& tallies, const Context& context) {
    Json json = Json::array();
    TextTable table({{"rule", true}, {"packets", true}, {"bytes", true}, {"verdict"}, {"what"}});
    for (const auto& [key, tally] : tallies) {
        const bool by_rule = key.first != NC_NO_RULE;
        json.push_back({{"verdict", tally.verdict},
                        {"reason", by_rule ? to_string(NC_REASON_RULE) : tally.what},
                        {"rule_id", by_rule ? Json(key.first) : Json()},
                        {"rule_text", by_rule ? Json(tally.what) : Json()},
                        {"packets", tally.packets},
                        {"bytes", tally.bytes}});
        table.row({key.first == NC_NO_RULE ? "-" : std::to_string(key.first),
                   std::to_string(tally.packets), std::to_string(tally.bytes), tally.verdict,
                   tally.what});
    }
    context.out.document(json, table.render());
}

} // namespace

Result<FilterSettings> settings_of(const Arguments& arguments, Hook hook) {
    const auto verdict = [&](const std::string& option) -> std::optional<nc_verdict> {
        if (!arguments.has(option))
            return std::nullopt;
        const std::string word = arguments.get(option);
        return word == "drop"   ? NC_VERDICT_DROP
               : word == "next" ? NC_VERDICT_NEXT
                                : NC_VERDICT_PASS;
    };
    FilterSettings settings{.default_verdict = verdict("default"),
                            .unparsed_verdict = verdict("on-unparsed")};
    if (arguments.has("log-rate"))
        settings.log_rate = static_cast<std::uint32_t>(
            NETCTL_TRY(arguments.number("log-rate", 0, 1, 1'000'000'000)));
    if (arguments.has("rules")) {
        const std::string path = arguments.get("rules");
        settings.rules =
            NETCTL_TRY(parse_rules(NETCTL_TRY(sys::read_text(path)), hook, sys::text_name(path)));
    }
    return settings;
}

Option dare_option() {
    return {"yes", "", "also if it cuts off the ssh session that the command comes from", {}};
}

namespace {

std::vector<Option> setting_options(std::vector<Option> own,
                                    const std::vector<std::string>& verdicts) {
    const std::string choice = fmt::format("{}", fmt::join(verdicts, "|"));
    own.push_back({"default", choice,
                   fmt::format("verdict on what no rule matches (default: {})", verdicts.front()),
                   verdicts});
    own.push_back({"on-unparsed", choice,
                   "verdict on what is cut, contradicts itself or nests too deep (default: drop)",
                   verdicts});
    own.push_back({"log-rate", "N", "log events a second at most (default: 10000)", {}});
    own.push_back(dare_option());
    return own;
}

} // namespace

std::vector<Option> attach_options(std::vector<Option> own,
                                   const std::vector<std::string>& verdicts) {
    std::vector<Option> options = setting_options(std::move(own), verdicts);
    options.push_back({"rules", "FILE", "rules that are in force from the first packet", {}});
    return options;
}

Command set_command(Hook hook, const std::vector<Positional>& place, const OpenPoint& open,
                    const std::vector<std::string>& verdicts) {
    return {
        .name = "set",
        .summary = "change the default verdict and other settings, in one step with no gap",
        .positionals = place,
        .options = setting_options({}, verdicts),
        .run = [=](const Arguments& arguments, Context& context) -> Result<int> {
            const FilterSettings settings = NETCTL_TRY(settings_of(arguments, hook));
            if (!settings.any())
                return Error::usage("nothing is to be set",
                                    "--default, --on-unparsed and --log-rate are the settings");
            nc_point point{};
            const CommitReport report = NETCTL_TRY(open(arguments, context)
                                                       ->commit(
                                                           [&](PointState& state) -> Result<> {
                                                               settings.apply_to(state.point);
                                                               point = state.point;
                                                               return {};
                                                           },
                                                           RuleEditor::Scope::some));
            context.out.notes(report.notes);
            const std::string default_verdict =
                to_string(static_cast<nc_verdict>(point.default_verdict));
            const std::string unparsed = to_string(static_cast<nc_verdict>(point.unparsed_verdict));
            context.out.document({{"generation", report.generation},
                                  {"default", default_verdict},
                                  {"on_unparsed", unparsed},
                                  {"log_rate", point.log_rate}},
                                 Text::format("default {}, unparsed {}, {} log events a second\n",
                                              default_verdict, unparsed, point.log_rate));
            return 0;
        }};
}

Json status_json(const FilterStatus& status, Json place,
                 std::initializer_list<nc_verdict> verdicts) {
    place["interface_now"] = status.now;
    place["trouble"] = status.trouble.empty() ? Json(nullptr) : Json(status.trouble);
    if (!reads_abi(status.settings.abi_version))
        return place; // nothing of it is known
    const nc_stats& stats = status.stats;
    Json counts = Json::object();
    for (const nc_verdict verdict : verdicts)
        counts[to_string(verdict)] = status.packets_with(verdict);
    Json unparsed = Json::object();
    for (int reason = 0; reason < NC_UNPARSED_REASONS; reason++)
        unparsed[to_string(static_cast<nc_unparsed>(reason))] = stats.unparsed[reason];
    Json rules = Json::array();
    for (const RuleStatus& rule : status.rules)
        rules.push_back(rule_json(rule));
    const Json common{
        {"default", to_string(static_cast<nc_verdict>(status.settings.default_verdict))},
        {"on_unparsed", to_string(static_cast<nc_verdict>(status.settings.unparsed_verdict))},
        {"program_id", status.program_id},
        {"generation", status.settings.generation},
        {"engine", engine_json(status.settings)},
        {"packets", stats.packets},
        {"bytes", stats.bytes},
        {"verdicts", counts},
        {"default_packets", stats.default_packets},
        {"default_bytes", stats.default_bytes},
        {"over_limit", stats.over_limit},
        {"unparsed", unparsed},
        {"redirect_failed", stats.redirect_failed},
        {"limit_failed", stats.limit_failed},
        {"reject",
         {{"silent", status.rejects.silent},
          {"suppressed", status.rejects.suppressed},
          {"failed", status.rejects.failed}}},
        {"over_add",
         {{"added", status.over_adds.added},
          {"there", status.over_adds.there},
          {"exception", status.over_adds.exception},
          {"full", status.over_adds.full},
          {"changing", status.over_adds.changing}}},
        {"log",
         {{"rate", status.settings.log_rate},
          {"written", stats.log_written},
          {"lost", stats.log_lost},
          {"suppressed", stats.log_suppressed}}},
        {"rules", rules}};
    place.update(common);
    return place;
}

Text status_text(const FilterStatus& status, std::initializer_list<nc_verdict> verdicts,
                 const std::string& what_to_do) {
    const nc_stats& stats = status.stats;
    Text text;
    if (!status.trouble.empty())
        text += Text::format("  not all of it can be read: {}\n", status.trouble);
    if (status.presence == Presence::unknown)
        text += Text::format("  whether it is attached cannot be told\n");
    if (status.presence == Presence::renamed)
        text += Text::format("  its interface is called {} now; the next change names it so\n",
                             status.now);
    if (status.presence == Presence::moved)
        text += Text::format(
            "  its interface is in another network namespace now, and filtered there\n");
    if (status.presence == Presence::vanished)
        text += Text::format("  the interface is gone; its rules and counters are kept\n");
    if (status.presence == Presence::returned)
        text += Text::format("  the interface was gone and is back, unfiltered: `{}` filters it "
                             "again with these rules\n",
                             what_to_do);
    if (status.presence == Presence::removed)
        text += Text::format("  somebody removed the filter: `{}` filters again with these rules\n",
                             what_to_do);
    text += Text::format("  {} packets, {} bytes: ", stats.packets, stats.bytes);
    bool first = true;
    for (const nc_verdict verdict : verdicts) {
        if (verdict == NC_VERDICT_SYNCOOKIE && status.packets_with(verdict) == 0)
            continue; // few have such rules
        text += Text::format("{}{} {}", first ? "" : ", ", status.packets_with(verdict),
                             participle(verdict));
        first = false;
    }
    text += Text::format("\n  {}\n", engine_text(status.settings));
    text += Text::format("  {} by no rule ({})\n", stats.default_packets,
                         to_string(static_cast<nc_verdict>(status.settings.default_verdict)));
    // What is zero on a healthy host is shown only when it is not.
    const auto rare = [&](std::uint64_t count, const std::string& what) {
        if (count != 0)
            text += Text::format("  {} {}\n", count, what);
    };
    rare(stats.over_limit, status.syncookies.packets == 0
                               ? "over a rule's limit (dropped)"
                               : "over a rule's limit (dropped, or answered with a cookie)");
    rare(stats.over_rate, "over a rule's rate (dropped)");
    for (int reason = 0; reason < NC_UNPARSED_REASONS; reason++)
        rare(stats.unparsed[reason],
             Text::format("unparsed: {}", to_string(static_cast<nc_unparsed>(reason))));
    rare(stats.redirect_failed, "not redirected, since the target is gone (dropped)");
    rare(stats.mirror_failed, "copies not mirrored");
    rare(stats.rewrite_failed, "headers not rewritten");
    rare(stats.limit_failed, "without room for a limit's state (dropped)");
    rare(status.rejects.silent, "rejected without an answer, which they must not have");
    rare(status.rejects.suppressed, "rejected without an answer: above the rate of ICMP errors");
    rare(status.rejects.failed, "rejected without an answer, which could not be made");
    rare(status.over_adds.added, "times an address over a rule's limit was added to a set");
    rare(status.over_adds.there, "over the limit of addresses that are in the rule's set");
    rare(status.over_adds.exception, "over the limit of addresses that the rule's set excepts");
    rare(status.over_adds.full, "addresses not added to a set: it has no room");
    rare(status.over_adds.changing, "addresses not added to a set that changed just then");
    rare(status.syncookies.answered, "SYNs answered with a cookie");
    rare(status.syncookies.refused, "SYNs for which the kernel gave no cookie");
    rare(status.syncookies.failed, "SYNs whose answer could not be made (dropped)");
    rare(status.syncookies.dropped, "over a rule's limit that no cookie answers (dropped)");
    rare(stats.log_written, "log events written");
    rare(stats.log_lost, "log events lost: the buffer was full");
    rare(stats.log_suppressed, "log events left out: above the log's rate");
    if (!status.rules.empty())
        text += rule_table(status.rules, "  ");
    return text;
}

Text trouble_text(const FilterStatus& status, const std::string& command,
                  const std::string& place) {
    if (reads_abi(status.settings.abi_version))
        return {};
    return Text::format(
        "{}{}: it cannot be read: {}\n  `{} rule replace {}` puts other rules in force, "
        "`{} detach {}` takes it away\n",
        place, status.netns.empty() ? "" : fmt::format(" (netns {})", status.netns), status.trouble,
        command, place, command, place);
}

namespace {

/// Bits 1 << Key of the fields in which two packets differ.
std::uint32_t differing_keys(const nc_packet& a, const nc_packet& b) {
    constexpr std::uint32_t of_ip = NC_HAS_IPV4 | NC_HAS_IPV6;
    std::uint32_t keys = 0;
    for (const KeyInfo& key : rule_keys()) {
        if (!is_of_packets(key.key))
            continue;
        const bool address = key.key == Key::src || key.key == Key::dst;
        const bool differs =
            address ? (a.has & of_ip) != (b.has & of_ip) ||
                          std::memcmp(key.key == Key::src ? a.src : a.dst,
                                      key.key == Key::src ? b.src : b.dst, sizeof a.src) != 0
                    : classifier::number_of(a, key.key) != classifier::number_of(b, key.key);
        keys |= std::uint32_t{differs} << static_cast<unsigned>(key.key);
    }
    return keys;
}

/// Whether what a capture did not keep of a frame, from byte `captured` on, may matter to rules that look at
/// the fields `looked_at`. A field that takes a bit from there differs between a frame of zeroes and one of ones.
bool matters(std::span<const std::uint8_t> frame, std::size_t captured, FrameForm form,
             std::uint32_t looked_at) {
    const auto parsed_with = [&](std::uint8_t missing) {
        std::vector<std::uint8_t> whole(frame.begin(), frame.end());
        std::fill(whole.begin() + static_cast<std::ptrdiff_t>(captured), whole.end(), missing);
        return form == FrameForm::ip ? classifier::parse_ip(whole)
                                     : classifier::parse_ethernet(whole);
    };
    const classifier::Parsed low = parsed_with(0), high = parsed_with(0xff);
    return low.parsed != high.parsed || low.reason != high.reason ||
           (differing_keys(low.packet, high.packet) & looked_at) != 0;
}

Result<int> simulate_capture(const Arguments& arguments, Context& context, FrameForm form,
                             const Simulate& simulate) {
    auto reader = NETCTL_TRY(sys::PcapReader::open(arguments["FILE"]));
    const sys::LinkType link = reader.link_type();
    const bool ethernet = link == sys::LinkType::ethernet;
    if ((!ethernet && link != sys::LinkType::raw_ip) || (ethernet && form == FrameForm::ip))
        return Error::failed(
            fmt::format("{} holds frames of type {}", arguments["FILE"], reader.link_type_name()),
            form == FrameForm::ip
                ? "this interface has packets without Ethernet header: capture on one like it"
                : "the interface has Ethernet frames: capture on an Ethernet interface");
    const bool summary = arguments.has("summary");
    const std::string expected = arguments.get("expect");
    std::uint64_t number = 0, judged = 0, skipped = 0, others = 0, undecided = 0;
    std::uint32_t looked_at = 0;
    std::size_t captured = 0; // of the frame at hand; what follows is made up
    // Rules in the order of their ids; what no rule decided comes behind them.
    Tallies tallies;

    const auto next = [&]() -> Result<std::optional<std::vector<std::uint8_t>>> {
        constexpr std::size_t ether_header = 14;
        for (;;) {
            auto frame = NETCTL_TRY(reader.next());
            if (!frame)
                return std::optional<std::vector<std::uint8_t>>();
            number++;
            const std::size_t missing =
                frame->length - std::min<std::size_t>(frame->length, frame->bytes.size());
            if (!ethernet && form == FrameForm::ethernet && !frame->bytes.empty()) {
                std::array<std::uint8_t, ether_header> header{};
                const bool ipv6 = frame->bytes[0] >> 4 == 6;
                header[12] = ipv6 ? 0x86 : 0x08;
                header[13] = ipv6 ? 0xdd : 0x00;
                frame->bytes.insert(frame->bytes.begin(), header.begin(), header.end());
            }
            captured = frame->bytes.size();
            frame->bytes.resize(captured + missing);
            if (frame->bytes.size() >= ether_header)
                return std::optional(std::move(frame->bytes));
            skipped++; // shorter than the kernel's test run takes, and than any real frame
        }
    };
    const auto handle = [&](std::span<const std::uint8_t> frame, const Simulated& simulated) {
        const auto verdict = static_cast<nc_verdict>(simulated.result.verdict);
        const auto reason = static_cast<nc_reason>(simulated.result.reason);
        const std::string unparsed = to_string(static_cast<nc_unparsed>(simulated.result.unparsed));
        std::string what = to_string(reason);
        if (reason == NC_REASON_UNPARSED)
            what += ": " + unparsed;
        if (simulated.rule)
            what = fmt::format("rule {}", simulated.rule->id);
        judged++;
        looked_at |= simulated.looked_at;
        const bool open =
            captured < frame.size() && matters(frame, captured, form, simulated.looked_at);
        if (open)
            what = fmt::format("the capture has {} of {} bytes", captured, frame.size());
        undecided += open;
        others += !open && to_string(verdict) != expected;
        if (summary) {
            if (open)
                what = "cut by the capture";
            const bool by_rule = simulated.rule && !open;
            Tally& tally = tallies[{by_rule ? simulated.rule->id : NC_NO_RULE, what}];
            tally.packets++;
            tally.bytes += frame.size();
            tally.verdict = open ? "undecided" : to_string(verdict);
            tally.what = by_rule ? to_string(*simulated.rule) : what;
            return;
        }
        const Json json{
            {"number", number},
            {"verdict", open ? Json("undecided") : Json(to_string(verdict))},
            {"reason", open ? Json("cut by the capture") : Json(to_string(reason))},
            {"unparsed", reason == NC_REASON_UNPARSED && !open ? Json(unparsed) : Json()},
            {"rule_id", simulated.rule && !open ? Json(simulated.rule->id) : Json()},
            {"packet", classifier::packet_json(simulated.result.packet)}};
        context.out.line(json, fmt::format("{} {} ({}): {}", number,
                                           open ? "undecided" : to_string(verdict), what,
                                           classifier::packet_text(simulated.result.packet)));
    };
    NETCTL_TRY(simulate(said_options(arguments), next, handle));
    for (const Key key : untold(arguments, looked_at))
        context.out.note(fmt::format(
            "rules ask for the {} of a packet, which a file does not hold: {} for all of "
            "them; --{} says what else there is",
            to_string(key), key == Key::ct ? "unknown" : "'none'", to_string(key)));
    if (skipped > 0)
        context.out.note(
            fmt::format("{} frames shorter than an Ethernet header left out", skipped));
    if (summary)
        print_tallies(tallies, context);
    if (!arguments.has("expect"))
        return 0;
    if (judged == 0)
        return Error::failed(
            fmt::format("{} has no packet that could be judged", arguments["FILE"]));
    if (others > 0)
        return 1;
    if (undecided > 0)
        return Error::unknown(
            fmt::format("{} packets are cut by the capture before what rules look at", undecided));
    return 0;
}

} // namespace

Result<int> print_simulation(const Arguments& arguments, Context& context, FrameForm form,
                             const Simulate& simulate) {
    auto status = simulate_capture(arguments, context, form, simulate);
    if (!status && arguments.has("expect"))
        return std::move(status).error().could_not_tell();
    return status;
}

namespace {

/// Keys that a packet alone does not tell, and that have a name for each value.
constexpr Key told_keys[] = {Key::socket, Key::ct};

std::vector<std::string> value_names(Key key) {
    std::vector<std::string> names;
    for (const NamedRange& named : info(key).names)
        if (named.low == named.high)
            names.emplace_back(named.name);
    return names;
}

std::optional<std::uint32_t> said_value(const Arguments& arguments, Key key) {
    const std::string name(to_string(key));
    for (const NamedRange& named : info(key).names)
        if (named.low == named.high && arguments.has(name) && named.name == arguments.get(name))
            return static_cast<std::uint32_t>(named.low);
    return {};
}

} // namespace

std::vector<Option> told_options() {
    std::vector<Option> options;
    for (const Key key : told_keys) {
        const std::vector<std::string> names = value_names(key);
        options.push_back({std::string(to_string(key)), fmt::format("{}", fmt::join(names, "|")),
                           key == Key::ct
                               ? "what connection tracking has for each packet (default: unknown)"
                               : "what this host has for each packet (default: none)",
                           names});
    }
    return options;
}

nc_told said_options(const Arguments& arguments) {
    nc_told told{};
    told.socket = said_value(arguments, Key::socket).value_or(NC_SOCKET_NONE);
    if (const auto ct = said_value(arguments, Key::ct)) {
        told.has = NC_HAS_CT;
        told.ct = *ct;
    }
    return told;
}

std::vector<Key> untold(const Arguments& arguments, std::uint32_t looked_at) {
    std::vector<Key> keys;
    for (const Key key : told_keys)
        if ((looked_at >> static_cast<unsigned>(key) & 1) != 0 &&
            !arguments.has(std::string(to_string(key))))
            keys.push_back(key);
    return keys;
}

std::vector<Option> simulate_options(std::initializer_list<nc_verdict> verdicts) {
    std::vector<std::string> names;
    for (const nc_verdict verdict : verdicts)
        names.push_back(to_string(verdict));
    std::vector<Option> options{
        {"summary", "", "print totals by rule instead of each packet", {}},
        {"expect", fmt::format("{}", fmt::join(names, "|")),
         "exit status 0 if all packets get this verdict, 1 if not, 4: could not tell", names}};
    for (Option& option : told_options())
        options.push_back(std::move(option));
    return options;
}

} // namespace netctl::datapath
