// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/rule_test_command.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "classifier/packet.hpp"
#include "classifier/packet_text.hpp"
#include "classifier/reference.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "datapath/explanation.hpp"
#include "datapath/filter.hpp"
#include "datapath/filter_command.hpp"
#include "datapath/judge.hpp"
#include "datapath/packet_words.hpp"
#include "sys/pcap.hpp"

namespace netctl::datapath {

namespace {

/// A packet, from words or from a frame.
struct AskedPacket {
    nc_packet packet{};
    bool parsed = true;
    nc_unparsed unparsed{};
    std::uint32_t said = ~std::uint32_t{0}; ///< bits 1 << Key
};

Result<AskedPacket> from_frame(std::vector<std::uint8_t> frame, bool frame_has_ether, bool ether) {
    AskedPacket asked;
    if (ether && !frame_has_ether && !frame.empty()) {
        const bool ipv6 = frame.front() >> 4 == 6;
        std::vector<std::uint8_t> header(14);
        header[12] = ipv6 ? 0x86 : 0x08;
        header[13] = ipv6 ? 0xdd : 0x00;
        frame.insert(frame.begin(), header.begin(), header.end());
    }
    const classifier::Parsed parsed =
        ether ? classifier::parse_ethernet(frame) : classifier::parse_ip(frame);
    asked.packet = parsed.packet;
    asked.packet.len = static_cast<__u32>(frame.size());
    asked.parsed = parsed.parsed;
    asked.unparsed = parsed.reason;
    return asked;
}

Result<AskedPacket> from_capture(const std::string& path, std::uint64_t number, bool ether) {
    auto reader = NETCTL_TRY(sys::PcapReader::open(path));
    const bool frames = reader.link_type() == sys::LinkType::ethernet;
    if ((!frames && reader.link_type() != sys::LinkType::raw_ip) || (frames && !ether))
        return Error::failed(fmt::format("{} holds frames of type {}, which do not come by here",
                                         path, reader.link_type_name()));
    for (std::uint64_t i = 1;; i++) {
        auto frame = NETCTL_TRY(reader.next());
        if (!frame)
            return Error::failed(fmt::format("{} has {} frames", path, i - 1));
        if (i != number)
            continue;
        // What the capture cut off is not looked at, but counts.
        frame->bytes.resize(std::max<std::size_t>(frame->length, frame->bytes.size()));
        return from_frame(std::move(frame->bytes), frames, ether);
    }
}

Result<AskedPacket> asked_packet(const Arguments& arguments, Hook hook, bool ether) {
    const bool words = !arguments.rest().empty();
    if (words + arguments.has("hex") + arguments.has("read") != 1)
        return Error::usage("say one packet: in words, with --hex, or with --read",
                            "for example: src 192.0.2.1 proto tcp dport 22 flags syn");
    for (const Option& option : told_options())
        if (words && arguments.has(option.name))
            return Error::usage(fmt::format("--{} goes with --hex and --read", option.name),
                                fmt::format("say it in words: {} established", option.name));
    if (words) {
        const SaidPacket said = NETCTL_TRY(read_packet(rule_text(arguments.rest()), hook, ether));
        return AskedPacket{said.packet, true, {}, said.said};
    }
    AskedPacket asked =
        arguments.has("hex")
            ? NETCTL_TRY(from_frame(NETCTL_TRY(read_hex(arguments.get("hex"))), true, ether))
            : NETCTL_TRY(from_capture(
                  arguments.get("read"),
                  NETCTL_TRY(arguments.number("frame", 1, 1, std::uint64_t{1} << 62)), ether));
    classifier::tell(asked.packet, said_options(arguments));
    for (const Key key : untold(arguments, asked.said))
        asked.said &= ~(std::uint32_t{1} << static_cast<unsigned>(key));
    return asked;
}

/// A packet's value of a key; null if it has none.
Json value_of(const nc_packet& packet, Key key) {
    if (key == Key::mark)
        return fmt::format("{:#x}", packet.mark);
    std::string name(to_string(key));
    std::replace(name.begin(), name.end(), '-', '_');
    const Json all = classifier::packet_json(packet);
    const auto value = all.find(name);
    return value == all.end() ? Json() : *value;
}

/// Which keys of a rule do not hold.
std::vector<Reason> reasons(const Rule& rule, const nc_packet& packet,
                            const classifier::SetOracle& sets) {
    std::vector<Reason> found;
    for (const Match& match : rule.matches) {
        Rule alone;
        alone.matches.push_back(match);
        if (!classifier::matches(alone, packet, sets))
            found.push_back({to_string(alone), value_of(packet, match.key)});
    }
    return found;
}

std::uint32_t looked_at(const Rule& rule) {
    std::uint32_t keys = 0;
    for (const Match& match : rule.matches)
        keys |= 1U << static_cast<unsigned>(match.key);
    return keys;
}

std::vector<std::string> names_of(std::uint32_t keys) {
    std::vector<std::string> names;
    for (const KeyInfo& key : rule_keys())
        if (is_of_packets(key.key) && (keys >> static_cast<unsigned>(key.key) & 1) != 0)
            names.emplace_back(key.name);
    return names;
}

/// How a packet fares, as JSON and as text.
class Answer {
  public:
    Answer(const PointState& state, const AskedPacket& asked) : state_(state), asked_(asked) {}

    Result<nc_verdict> find(const Root& root) {
        LiveSets live = NETCTL_TRY(LiveSets::open(root, state_.rules));
        const classifier::SetOracle sets = live.oracle();
        const InstalledRule* decisive = nullptr;
        for (const InstalledRule& installed : state_.rules) {
            if (!asked_.parsed)
                break;
            seen_ |= looked_at(installed.rule);
            const auto why = reasons(installed.rule, asked_.packet, sets);
            explanation_.add(installed.rule, why);
            if (why.empty()) {
                decisive = &installed;
                break;
            }
        }
        NETCTL_TRY(live.status());
        conclude(decisive == nullptr ? nullptr : &decisive->rule);
        return verdict_;
    }

    void print(const Context& context, bool explain) const {
        const std::vector<std::string> made_up = names_of(seen_ & ~asked_.said);
        Json json{{"verdict", to_string(verdict_)},
                  {"reason", to_string(reason_)},
                  {"unparsed", asked_.parsed ? Json() : Json(to_string(asked_.unparsed))},
                  {"rule_id", rule_ ? Json(rule_->id) : Json()},
                  {"rule_text", rule_ ? Json(to_string(*rule_)) : Json()},
                  {"packet", classifier::packet_json(asked_.packet)},
                  {"made_up", made_up}};
        if (explain)
            json["rules"] = explanation_.json();
        if (!made_up.empty())
            context.out.note(Text::format("rules look at what the packet does not say ({}): {}",
                                          fmt::format("{}", fmt::join(made_up, ", ")),
                                          classifier::packet_text(asked_.packet)));
        context.out.document(json, (explain ? explanation_.text() : Text()) +
                                       Text::format("{}: {}\n", to_string(verdict_), what_));
    }

  private:
    void conclude(const Rule* rule) {
        rule_ = rule;
        if (!asked_.parsed) {
            verdict_ = static_cast<nc_verdict>(state_.point.unparsed_verdict);
            reason_ = NC_REASON_UNPARSED;
            what_ = fmt::format("unparsed: {}", to_string(asked_.unparsed));
        } else if (rule == nullptr) {
            verdict_ = static_cast<nc_verdict>(state_.point.default_verdict);
            reason_ = NC_REASON_DEFAULT;
            what_ = state_.rules.empty() ? "there are no rules" : "no rule matches";
        } else {
            verdict_ = verdict_of(*rule);
            reason_ = NC_REASON_RULE;
            what_ = fmt::format("rule {}, {}", rule->id, to_string(*rule));
            if (rule->limit)
                what_ += "; dropped above its limit";
        }
    }

    const PointState& state_;
    const AskedPacket& asked_;
    std::uint32_t seen_ = 0; ///< keys that the rules looked at
    Explanation explanation_{"packet"};
    const Rule* rule_ = nullptr;
    nc_verdict verdict_ = NC_VERDICT_PASS;
    nc_reason reason_ = NC_REASON_DEFAULT;
    std::string what_;
};

Result<int> ask(const Arguments& arguments, const Context& context, Hook hook,
                const OpenPoint& open) {
    const Root root = NETCTL_TRY(Root::open(context.root));
    const LivePoint live = NETCTL_TRY(open(arguments, context)->open(root));
    NETCTL_TRY(check_readable(live.state.rules));
    const bool ether = hook == Hook::xdp || (live.state.point.flags & NC_POINT_ETHER) != 0;
    const AskedPacket asked = NETCTL_TRY(asked_packet(arguments, hook, ether));
    Answer answer(live.state, asked);
    const nc_verdict verdict = NETCTL_TRY(answer.find(root));
    answer.print(context, arguments.has("explain"));
    return !arguments.has("expect") || arguments.get("expect") == to_string(verdict) ? 0 : 1;
}

} // namespace

Command rule_test_command(Hook hook, const std::vector<Positional>& place, const OpenPoint& open,
                          std::initializer_list<nc_verdict> verdicts) {
    std::vector<std::string> names;
    for (const nc_verdict verdict : verdicts)
        names.push_back(to_string(verdict));
    std::vector<Positional> positionals = place;
    positionals.push_back({"PACKET", Positional::Count::rest});
    std::vector<Option> options{
        {"explain", "", "tell of each rule before it why it does not match", {}},
        {"hex", "BYTES", "the packet as a frame in hexadecimal digits", {}},
        {"read", "FILE", "a packet of a capture file", {}},
        {"frame", "N", "which of the file (default: 1)", {}}};
    for (Option& option : told_options())
        options.push_back(std::move(option));
    options.push_back({"expect", fmt::format("{}", fmt::join(names, "|")),
                       "exit status 0 if this is the verdict, 1 if not, 4: could not tell", names});
    return {
        .name = "test",
        .summary = "tell which rule decides about a packet, and what becomes of it",
        .description =
            "The packet is said in the words of rules, one value each: src 192.0.2.1 proto tcp "
            "dport "
            "22 flags syn. What is not said is made up, and told if a rule looks at it. Nothing is "
            "counted; limits count as not reached.",
        .positionals = std::move(positionals),
        .options = std::move(options),
        .run = [=](const Arguments& arguments, Context& context) -> Result<int> {
            auto status = ask(arguments, context, hook, open);
            if (!status && arguments.has("expect"))
                return std::move(status).error().could_not_tell();
            return status;
        }};
}

} // namespace netctl::datapath
