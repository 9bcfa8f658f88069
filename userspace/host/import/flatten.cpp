// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/flatten.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "host/import/conditions.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

constexpr std::size_t most_rules = 100'000;
constexpr std::size_t most_steps = 1'000'000;
constexpr unsigned deepest = 40;

/// A rule of the list in the making.
struct Line {
    Conditions conditions;
    Outcome outcome{}; ///< none: only logs
    std::optional<Limit> limit;
    bool above = false;
    bool log = false;
    const ForeignRule* from = nullptr; ///< null: a chain's policy
    std::string origin;
    std::string missed; ///< why the rule is not taken: nothing but a mark of where it would be
    std::uint8_t effect = effect_none;
};

bool fits(std::string_view pattern, std::string_view name) {
    return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1))
                                  : pattern == name;
}

std::uint8_t effect_of(const ForeignRule& rule) {
    // What is above a limit and dropped, too: the rule as a whole.
    const bool of_connections =
        rule.states != all_states && (rule.states & (state_established | state_related)) != 0;
    switch (rule.outcome) {
    case Outcome::none: return effect_none;
    case Outcome::pass: return of_connections ? effect_cuts : effect_stricter;
    case Outcome::drop:
    case Outcome::reject: return effect_weaker;
    default: return effect_weaker | effect_cuts;
    }
}

/// Whether a chain's rules from this one on decide nothing, as those do that only log.
bool decides_nothing(const ForeignChain& chain, std::size_t from) {
    return std::all_of(chain.rules.begin() + static_cast<std::ptrdiff_t>(from), chain.rules.end(),
                       [](const ForeignRule& rule) {
                           return rule.outcome == Outcome::none || rule.outcome == Outcome::back;
                       });
}

/// Where a chain goes on, and behind it.
struct Frame {
    const ForeignChain* chain = nullptr;
    std::size_t at = 0;
    const Frame* caller = nullptr;
    std::size_t base = 0; ///< which of the base chains it is called from
};

class Flattener {
  public:
    Flattener(const Foreign& foreign, const Where& where, std::vector<NotTaken>& not_taken)
        : foreign_(foreign), where_(where), not_taken_(not_taken) {}

    Result<Flattened> run() {
        for (const ForeignChain& chain : foreign_.chains)
            if (chain.hook == where_.chains() &&
                (chain.interfaces.empty() || names_it(chain.interfaces)))
                bases_.push_back(&chain);
        std::stable_sort(bases_.begin(), bases_.end(),
                         [](const ForeignChain* one, const ForeignChain* other) {
                             return one->priority < other->priority;
                         });
        const bool of_all = std::all_of(bases_.begin(), bases_.end(), [](const ForeignChain* one) {
            return one->ipv4 && one->ipv6;
        });
        if (of_all) {
            next_base(0, {}, 0);
        } else {
            // By families, since each has chains of its own; one that has none is let through.
            const std::vector<const ForeignChain*> all = bases_;
            for (const Family family : {Family::ipv4, Family::ipv6}) {
                bases_.clear();
                std::copy_if(all.begin(), all.end(), std::back_inserter(bases_),
                             [&](const ForeignChain* one) {
                                 return family == Family::ipv4 ? one->ipv4 : one->ipv6;
                             });
                if (!bases_.empty())
                    next_base(0, {family_match(family)}, 0);
            }
        }
        if (failed_)
            return std::move(*failed_);
        return list();
    }

  private:
    void fail(const std::string& what) {
        if (!failed_)
            failed_ = Error::failed(Text(what));
    }

    void miss(const ForeignRule& rule, const std::string& reason, std::uint8_t effect) {
        const auto same = [&](const NotTaken& one) {
            return one.place == rule.place && one.reason == reason;
        };
        const auto known = std::find_if(not_taken_.begin(), not_taken_.end(), same);
        if (known == not_taken_.end())
            not_taken_.push_back({rule.place, rule.text, reason, effect});
        else
            known->effect |= effect;
    }
    /// The same of a rule as a whole: what that means is told when all behind it are known.
    void miss_here(const ForeignRule& rule, const std::string& reason, const Conditions& way,
                   std::uint8_t effect) {
        Line mark;
        std::vector<Match> matches = rule.matches;
        std::erase_if(matches,
                      [&](const Match& match) { return !info(match.key).in(where_.hook); });
        mark.conditions = both(way, matches).conditions.value_or(way);
        mark.from = &rule;
        mark.missed = reason;
        mark.effect = effect;
        emit(std::move(mark));
    }

    void emit(Line line) {
        if (lines_.size() >= most_rules)
            fail(fmt::format("its chains become more than {} rules", most_rules));
        else
            lines_.push_back(std::move(line));
    }

    bool names_it(const std::vector<std::string>& names) const {
        return std::any_of(names.begin(), names.end(),
                           [&](const std::string& name) { return fits(name, where_.interface); });
    }

    /// False: never on this interface.
    bool holds_here(const ForeignRule& rule) const {
        return std::all_of(rule.interfaces.begin(), rule.interfaces.end(),
                           [&](const InterfaceTest& test) {
                               // What arrives has no interface to go out of, and what is sent came by none.
                               const bool known = test.out == where_.egress;
                               return (known && names_it(test.names)) != test.negated;
                           });
    }

    /// The rule's conditions with those of the way to it; nothing: it matches nothing, or is not taken.
    std::optional<Conditions> conditions_of(const Frame& frame, const ForeignRule& rule,
                                            const Conditions& way) {
        if (!holds_here(rule))
            return std::nullopt;
        if (!rule.unknown.empty()) {
            for (const std::string& reason : rule.unknown)
                miss_here(rule, reason, way, effect_here(frame, rule));
            return std::nullopt;
        }
        std::vector<Match> matches = rule.matches;
        if (rule.states != all_states) {
            const StateWords* words = state_words(where_.hook, where_.egress);
            const std::uint8_t known = words != nullptr ? rule.states & words->known : 0;
            if (known != rule.states) {
                // `invalid` and `untracked` packets have no connection here, whose sockets refuse them.
                const bool rest_matters =
                    (rule.states & ~known & ~(state_invalid | state_untracked)) != 0;
                miss_here(rule,
                          words == nullptr
                              ? fmt::format("{} has no states of connections", where())
                              : "'invalid' and 'untracked' are no states here: such packets are "
                                "asked like those of no connection",
                          way, rest_matters ? effect_here(frame, rule) : std::uint8_t{effect_none});
                if (known == 0)
                    return std::nullopt;
            }
            matches.push_back(ranges_match(words->key, words->values(known)));
            if (words->key == Key::socket && rule.outcome == Outcome::pass &&
                (known & state_established) != 0)
                miss(rule,
                     "answers to ping, and to UDP sockets that are not connected, are of no "
                     "connection here",
                     effect_stricter);
        }
        for (const Match& match : matches)
            if (!info(match.key).in(where_.hook)) {
                miss_here(
                    rule,
                    fmt::format("{} has no '{}'", to_string(where_.hook), to_string(match.key)),
                    way, effect_here(frame, rule));
                return std::nullopt;
            }
        Both result = both(way, matches);
        if (!result.why.empty()) {
            miss_here(rule, result.why, way, effect_here(frame, rule));
            return std::nullopt;
        }
        return std::move(result.conditions);
    }

    /// What it means that a rule is not taken; `frame` is behind it.
    std::uint8_t effect_here(const Frame& frame, const ForeignRule& rule) const {
        const bool away = rule.outcome == Outcome::jump || rule.outcome == Outcome::leap;
        const ForeignChain* target =
            away ? foreign_.find(frame.chain->table, rule.target) : nullptr;
        const bool no_matter =
            rule.outcome == Outcome::back
                ? frame.caller != nullptr && decides_nothing(*frame.chain, frame.at)
                : rule.outcome == Outcome::jump && target != nullptr && decides_nothing(*target, 0);
        return no_matter ? std::uint8_t{effect_none} : effect_of(rule);
    }

    std::string where() const {
        return fmt::format("{}{}", to_string(where_.hook), where_.egress ? " at egress" : "");
    }

    /// What a base chain lets through is asked of the next one.
    void next_base(std::size_t base, const Conditions& way, unsigned depth) {
        if (base < bases_.size())
            ask({bases_[base], 0, nullptr, base}, way, true, depth + 1);
        else
            emit({way, Outcome::pass, {}, false, false, nullptr, "", "", 0});
    }
    void decide(const ForeignRule& rule, Conditions way, std::size_t base, unsigned depth) {
        if (rule.outcome == Outcome::pass && base + 1 < bases_.size() && !rule.limit) {
            next_base(base + 1, way, depth);
            return;
        }
        if (rule.outcome == Outcome::pass && base + 1 < bases_.size())
            miss(rule, "what it lets through within its limit is asked of another chain, too",
                 effect_stricter);
        else
            emit({std::move(way), rule.outcome, rule.limit, rule.above, rule.log, &rule, rule.place,
                  "", 0});
    }
    /// Decides about all packets of `way` that come to a chain's end.
    void end(const Frame& frame, const Conditions& way, unsigned depth) {
        if (frame.caller != nullptr)
            ask(*frame.caller, way, true, depth + 1);
        else if (frame.chain->policy == Outcome::pass)
            next_base(frame.base + 1, way, depth);
        else
            emit({way,
                  frame.chain->policy,
                  {},
                  false,
                  false,
                  nullptr,
                  fmt::format("the policy of {} {}", frame.chain->table, frame.chain->name),
                  "",
                  0});
    }

    /// Asks a chain's rules about the packets of `way`. `whole`: until all of these are decided about; else those that
    /// come to its end are the caller's, who goes on. Returns whether none came there.
    bool ask(Frame frame, const Conditions& way, bool whole, unsigned depth) {
        if (depth > deepest) {
            fail("its chains call each other too deep, or in circles");
            return true;
        }
        const std::vector<ForeignRule>& rules = frame.chain->rules;
        while (frame.at < rules.size() && !failed_) {
            if (++steps_ > most_steps) {
                fail("its chains call each other too often");
                return true;
            }
            const ForeignRule& rule = rules[frame.at++];
            auto here = conditions_of(frame, rule, way);
            if (!here)
                continue;
            const bool all = *here == way;
            if (rule.limit && (rule.outcome == Outcome::jump || rule.outcome == Outcome::leap ||
                               rule.outcome == Outcome::back)) {
                miss_here(rule, "a limit decides which rules are asked", way,
                          effect_here(frame, rule));
                continue;
            }
            switch (rule.outcome) {
            case Outcome::none:
                if (rule.log)
                    emit({std::move(*here),
                          Outcome::none,
                          {},
                          false,
                          true,
                          &rule,
                          rule.place,
                          "",
                          0});
                break;
            case Outcome::pass:
            case Outcome::drop:
            case Outcome::reject:
                decide(rule, std::move(*here), frame.base, depth);
                if (all && !rule.limit)
                    return true;
                break;
            case Outcome::back:
                // Who only asks this chain goes on with what comes to its end, if that is all.
                if (all && !whole)
                    return false;
                end({frame.chain, 0, frame.caller, frame.base}, *here, depth);
                if (all)
                    return true;
                break;
            case Outcome::jump:
            case Outcome::leap: {
                const ForeignChain* target = foreign_.find(frame.chain->table, rule.target);
                if (target == nullptr) {
                    miss(rule, fmt::format("there is no chain '{}'", rule.target), effect_of(rule));
                    break;
                }
                if (rule.log)
                    emit({*here, Outcome::none, {}, false, true, &rule, rule.place, "", 0});
                const bool leaps = rule.outcome == Outcome::leap;
                bool decided = ask({target, 0, leaps ? frame.caller : &frame, frame.base}, *here,
                                   false, depth + 1);
                if (leaps && !decided) { // its end is this chain's end
                    if (all && !whole)
                        return false;
                    end(frame, *here, depth);
                    decided = true;
                }
                if (all && decided)
                    return true;
                break;
            }
            }
        }
        if (whole && !failed_)
            end(frame, way, depth);
        return whole;
    }

    /// What the lines from `at` on decide about these packets; none: that differs, or depends on a limit.
    Outcome decided(std::size_t at, const Conditions& packets) const {
        std::optional<Outcome> met;
        for (; at < lines_.size(); at++) {
            const Line& line = lines_[at];
            if (line.outcome == Outcome::none || apart(line.conditions, packets))
                continue;
            // Rejected is dropped, too.
            const Outcome outcome = line.outcome == Outcome::reject ? Outcome::drop : line.outcome;
            if (line.limit || (met && *met != outcome))
                return Outcome::none;
            met = outcome;
            if (covers(line.conditions, packets))
                return *met;
        }
        return Outcome::none; // never: the last line covers all
    }

    /// netctl's limit drops what is above it, where that of others asks the next rule.
    bool fit_limit(std::size_t at, Line& line) {
        const Outcome rest = decided(at + 1, line.conditions);
        if (line.outcome == Outcome::pass && !line.above) {
            if (rest == Outcome::pass)
                return false; // all of it passes anyway
            if (rest != Outcome::drop)
                miss(*line.from,
                     "what is above its limit is dropped, where some of the rules behind it would "
                     "let it through",
                     effect_stricter);
            return true;
        }
        if (line.outcome != Outcome::pass && line.above && rest == Outcome::pass) {
            line.outcome = Outcome::pass;
            line.above = false;
            return true;
        }
        if (rest != Outcome::drop)
            miss(*line.from,
                 line.above
                     ? "what is within its limit is asked of the rules behind it, which differ"
                     : "it drops at most so many packets",
                 effect_weaker);
        return false;
    }

    /// Nothing is lost by a rule if those behind it decide the same.
    void tell_missed(std::size_t at) {
        const Line& mark = lines_[at];
        const Outcome outcome = mark.from->outcome;
        const Outcome would = outcome == Outcome::reject ? Outcome::drop : outcome;
        const bool same = (would == Outcome::pass || would == Outcome::drop) &&
                          decided(at + 1, mark.conditions) == would;
        miss(*mark.from, mark.missed, same ? std::uint8_t{effect_none} : mark.effect);
    }

    /// Logging is a part of the rule that decides about the same packets.
    bool fit_log(std::size_t at, const Line& line) {
        for (std::size_t next = at + 1; next < lines_.size(); next++) {
            if (lines_[next].outcome == Outcome::none)
                continue;
            if (lines_[next].conditions != line.conditions)
                break;
            lines_[next].log = true;
            return true;
        }
        miss(*line.from, "it only logs, and the next rule decides about others", effect_none);
        return false;
    }

    Result<Flattened> list() {
        Flattened made;
        std::vector<bool> stays(lines_.size(), true);
        for (std::size_t at = 0; at < lines_.size(); at++)
            if (!lines_[at].missed.empty()) {
                tell_missed(at);
                stays[at] = false;
            } else if (lines_[at].outcome == Outcome::none) {
                fit_log(at, lines_[at]);
                stays[at] = false;
            }
        for (std::size_t at = lines_.size(); at-- > 0;)
            if (stays[at] && lines_[at].limit)
                stays[at] = fit_limit(at, lines_[at]);
        for (std::size_t at = 0; at < lines_.size(); at++)
            if (stays[at])
                add(lines_[at], made);
        // The last one is about all that is left: it is the default, unless it logs.
        if (!made.rules.empty() && made.rules.back().matches.empty() && !made.rules.back().log &&
            !made.rules.back().limit && made.rules.back().actions[0].kind != ActionKind::reject) {
            made.fallback = made.rules.back().actions[0].kind == ActionKind::pass ? NC_VERDICT_PASS
                                                                                  : NC_VERDICT_DROP;
            made.rules.pop_back();
            made.remarks.pop_back();
        }
        // A policy that does what the default does anyway.
        while (!made.rules.empty() && made.fallback == NC_VERDICT_PASS &&
               made.rules.back().actions[0].kind == ActionKind::pass &&
               made.remarks.back().empty()) {
            made.rules.pop_back();
            made.remarks.pop_back();
        }
        if (std::any_of(
                made.rules.begin(), made.rules.end(),
                [](const Rule& rule) { return rule.actions[0].kind != ActionKind::pass; }) ||
            made.fallback != NC_VERDICT_PASS)
            add_around(made);
        return made;
    }

    void add(const Line& line, Flattened& made) {
        Rule rule;
        rule.matches = line.conditions;
        // Addresses of one family tell it.
        const auto told = [&](Family family) {
            return std::any_of(rule.matches.begin(), rule.matches.end(),
                               [family](const Match& match) {
                                   return !match.prefixes.empty() &&
                                          std::all_of(match.prefixes.begin(), match.prefixes.end(),
                                                      [family](const Prefix& prefix) {
                                                          return prefix.address.family == family;
                                                      });
                               });
        };
        for (const Family family : {Family::ipv4, Family::ipv6})
            if (told(family))
                std::erase(rule.matches, family_match(family));
        Action action;
        const bool answers = line.outcome == Outcome::reject && !where_.egress;
        action.kind = line.outcome == Outcome::pass ? ActionKind::pass
                      : answers                     ? ActionKind::reject
                                                    : ActionKind::drop;
        if (line.outcome == Outcome::reject && !answers)
            miss(*line.from, "nothing is answered at egress: it drops", effect_none);
        rule.actions = {action};
        rule.limit = line.limit;
        rule.log = line.log;
        std::string origin = line.origin;
        if (line.from != nullptr) {
            rule.comment = line.from->comment.substr(0, max_comment_bytes);
            std::erase(rule.comment, '\0');
            if (!line.from->text.empty())
                origin += ": " + line.from->text;
            for (const std::string& remark : line.from->remarks)
                miss(*line.from, remark, effect_none);
        }
        // By the parser, which knows what can be.
        auto checked = parse_rule(to_string(rule), where_.hook);
        if (checked) {
            made.rules.push_back(std::move(*checked));
            made.remarks.push_back(std::move(origin));
            return;
        }
        const bool never = checked.error().what.find("can never match") != std::string::npos;
        const bool of_states = rule.find(Key::socket) != nullptr;
        if (line.from != nullptr && (!never || of_states))
            miss(*line.from,
                 never ? "only TCP, UDP and ICMP errors are found by sockets"
                       : checked.error().what.string().substr(0, checked.error().what.find("\n")),
                 effect_of(*line.from));
    }

    /// What netfilter's hooks see is IP, and whole.
    void add_around(Flattened& made) const {
        struct Added {
            const char *rule, *remark;
        };
        std::vector<Added> added = {
            {"ether-type not {ipv4, ipv6} pass", "what is no IP was asked of no rule"},
            {"frag later pass",
             "a datagram was asked when it was whole; its first fragment decides"},
        };
        if (!where_.egress)
            added.insert(added.begin() + 1, {"frag tiny drop", "no rule could see what it is"});
        std::size_t at = 0;
        for (const Added& one : added) {
            made.rules.insert(made.rules.begin() + static_cast<std::ptrdiff_t>(at),
                              parse_rule(one.rule, where_.hook).value());
            made.remarks.insert(made.remarks.begin() + static_cast<std::ptrdiff_t>(at++),
                                one.remark);
        }
    }

    const Foreign& foreign_;
    const Where& where_;
    std::vector<NotTaken>& not_taken_;
    std::vector<const ForeignChain*> bases_;
    std::vector<Line> lines_;
    std::size_t steps_ = 0;
    std::optional<Error> failed_;
};

} // namespace

Result<Flattened> flatten(const Foreign& foreign, const Where& where,
                          std::vector<NotTaken>& not_taken) {
    return Flattener(foreign, where, not_taken).run();
}

} // namespace netctl::host
