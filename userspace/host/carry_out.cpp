// SPDX-License-Identifier: GPL-2.0-only
//
// The steps of a plan, each by one commit of its feature (invariant I2).
#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "datapath/edit.hpp"
#include "features/policy/controller.hpp"
#include "features/redirect/controller.hpp"
#include "features/set/controller.hpp"
#include "features/tc/controller.hpp"
#include "features/xdp/controller.hpp"
#include "host/element_text.hpp"
#include "host/plan.hpp"

namespace netctl::host {

namespace {

using Told = std::vector<std::string>;

constexpr unsigned apply_drain_ms = 5000;

Result<set::NameRequest> request_of(const SetConfig& set) {
    set::NameRequest request;
    request.netns = set.netns;
    request.grace = set.grace.value_or(request.grace);
    for (const std::string& resolver : set.resolvers)
        request.resolvers.push_back(NETCTL_TRY(Address::parse(resolver)));
    return request;
}

/// The names of a set that is there. What comes, before what goes.
Result<Told> do_names(const Step& step, Told told, set::Controller& controller) {
    const SetConfig& to = *step.set_to;
    if (to.external)
        return told;
    const std::vector<std::string> had =
        step.set_from ? step.set_from->names : std::vector<std::string>();
    std::vector<std::string> gone, come;
    std::ranges::set_difference(had, to.names, std::back_inserter(gone));
    std::ranges::set_difference(to.names, had, std::back_inserter(come));
    const auto take = [&](Result<set::ChangeReport> report) -> Result<> {
        const set::ChangeReport done = NETCTL_TRY(std::move(report));
        told.insert(told.end(), done.notes.begin(), done.notes.end());
        return {};
    };
    if (step.set_from && !to.resolvers.empty() && to.resolvers != step.set_from->resolvers) {
        const auto notes = NETCTL_TRY(
            controller.set_resolvers(to.name, NETCTL_TRY(request_of(to)).resolvers, to.netns));
        told.insert(told.end(), notes.begin(), notes.end());
    }
    if (!come.empty())
        NETCTL_TRY(take(controller.add(to.name, come, 0)));
    if (!gone.empty() && !step.only_adds)
        NETCTL_TRY(take(controller.remove(to.name, gone, datapath::Set::Missing::ignore)));
    return told;
}

Result<Told> do_set(const Step& step, const RootOptions& root) {
    set::Controller controller(root);
    if (!step.set_to)
        return controller.destroy(step.set_from->name);
    const SetConfig& to = *step.set_to;
    Told told;
    if (!step.set_from)
        told = NETCTL_TRY(controller.create(to.name, to.type,
                                            to.size.value_or(set::default_size(to.type)), "",
                                            NETCTL_TRY(request_of(to))));
    if (to.type == datapath::SetType::name)
        return do_names(step, std::move(told), controller);
    if (to.external || (!step.set_from && to.elements.empty()))
        return told;
    std::string text;
    for (const std::string& line : element_lines(to.elements))
        text += line + "\n";
    auto report = controller.import(to.name, {{to.name, text}},
                                    {.replace = !step.only_adds, .allow_empty = true});
    if (!report && !step.set_from) {
        // One step for the user: what cannot be filled is not made.
        if (const auto gone = controller.destroy(to.name); !gone)
            told.push_back(fmt::format("set {} stays, empty", to.name));
    }
    if (!report)
        return std::move(report).error();
    told.insert(told.end(), report->notes.begin(), report->notes.end());
    return told;
}

datapath::FilterSettings settings_to(const FilterConfig& filter) {
    return {.default_verdict = filter.default_verdict,
            .unparsed_verdict = filter.unparsed_verdict,
            .log_rate = filter.log_rate,
            .rules = filter.rules};
}

Result<Told> change_filter(datapath::FilterPoint& point, const FilterConfig& to,
                           const Ready& ready) {
    point.dare(); // whoever makes the plan asks, of all of it
    point.when_ready(ready);
    const auto report = NETCTL_TRY(point.commit(
        [&](datapath::PointState& state) {
            settings_to(to).apply_to(state.point);
            return datapath::replace_rules(state, to.rules);
        },
        datapath::RuleEditor::Scope::all));
    return report.notes;
}

Result<Told> do_xdp(const Step& step, const RootOptions& root, const Ready& ready) {
    const FilterConfig& any = step.filter_to ? *step.filter_to : *step.filter_from;
    const xdp::Controller controller(root, any.netns);
    if (!step.filter_to)
        return controller.detach(any.interface);
    if (step.filter_from)
        return change_filter(*controller.point(any.interface), any, ready);
    xdp::AttachRequest request;
    request.interface = any.interface;
    request.dared = true;
    request.ready = ready;
    request.mode = any.mode == "native"    ? xdp::ModeChoice::native
                   : any.mode == "generic" ? xdp::ModeChoice::generic
                                           : xdp::ModeChoice::automatic;
    request.settings = settings_to(any);
    return NETCTL_TRY(controller.attach(request)).notes;
}

Result<Told> do_tc(const Step& step, const RootOptions& root, const Ready& ready) {
    const FilterConfig& any = step.filter_to ? *step.filter_to : *step.filter_from;
    const tc::Direction direction =
        any.direction == "egress" ? tc::Direction::egress : tc::Direction::ingress;
    const tc::Controller controller(root, any.netns);
    if (!step.filter_to)
        return NETCTL_TRY(controller.detach(any.interface, direction)).notes;
    if (step.filter_from)
        return change_filter(*controller.point(any.interface, direction), any, ready);
    tc::AttachRequest request;
    request.interface = any.interface;
    request.direction = direction;
    request.dared = true;
    request.ready = ready;
    if (!any.mode.empty())
        request.mode = any.mode == "tcx" ? tc::Mode::tcx : tc::Mode::clsact;
    request.settings = settings_to(any);
    return NETCTL_TRY(controller.attach(request)).notes;
}

Result<Told> do_policy(const Step& step, const RootOptions& root, bool dared) {
    const policy::Controller controller(root);
    if (!step.policy_to)
        return controller.disable();
    const PolicyConfig& to = *step.policy_to;
    policy::EnableRequest request;
    if (!step.policy_from) {
        request.cgroup = to.cgroup;
        if (!to.layer.empty())
            request.layer = to.layer == "both"     ? policy::LayerChoice::both
                            : to.layer == "cgroup" ? policy::LayerChoice::cgroup
                                                   : policy::LayerChoice::lsm;
    }
    request.mode = to.mode;
    request.default_verdict = to.default_verdict;
    request.log_rate = to.log_rate;
    request.rules = to.rules;
    request.yes = dared;
    return NETCTL_TRY(controller.enable(request)).notes;
}

Result<Told> do_redirect(const Step& step, const RootOptions& root) {
    redirect::Controller controller(root);
    if (!step.redirect_to) {
        NETCTL_TRY(controller.disable(apply_drain_ms));
        return Told();
    }
    const RedirectConfig& to = *step.redirect_to;
    Told told;
    if (!step.redirect_from)
        told = NETCTL_TRY(controller.enable({.cgroup = to.cgroup,
                                             .allow_blocking = to.allow_blocking,
                                             .cross_netns = to.cross_netns,
                                             .force = to.force}))
                   .notes;
    const auto fill = [&]() -> Result<> {
        if (!step.redirect_from || rule_texts(step.redirect_from->to) != rule_texts(to.to))
            NETCTL_TRY(controller.replace_to(to.to));
        if (!step.redirect_from || rule_texts(step.redirect_from->rules) != rule_texts(to.rules))
            NETCTL_TRY(controller.replace_rules(to.rules));
        return {};
    };
    auto filled = fill();
    if (filled)
        return told;
    // The first of two lists may be in force: back to where it was.
    const auto back =
        step.redirect_from ? controller.replace_to(step.redirect_from->to) : Result<>();
    if (!back || (!step.redirect_from && !controller.disable(apply_drain_ms).has_value()))
        return Error(filled.error()).within("redirection is left half changed");
    return std::move(filled).error();
}

} // namespace

std::vector<std::string> rule_texts(const std::vector<Rule>& rules) {
    std::vector<std::string> texts;
    for (const Rule& rule : rules)
        texts.push_back(to_string(rule));
    return texts;
}

Result<std::vector<std::string>> carry_out(const Step& step, const RootOptions& root, bool dared,
                                           const Ready& ready) {
    if (step.set_from || step.set_to)
        return do_set(step, root);
    if (step.policy_from || step.policy_to)
        return do_policy(step, root, dared);
    if (step.redirect_from || step.redirect_to)
        return do_redirect(step, root);
    const FilterConfig& filter = step.filter_to ? *step.filter_to : *step.filter_from;
    return filter.hook == Hook::xdp ? do_xdp(step, root, ready) : do_tc(step, root, ready);
}

} // namespace netctl::host
