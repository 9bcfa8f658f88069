// SPDX-License-Identifier: GPL-2.0-only
#include "features/tc/controller.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>

#include <fmt/format.h>

#include "bpf/pin_dir.hpp"
#include "datapath/filter_point.hpp"
#include "datapath/generation.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/classify.h"
#include "sys/netns.hpp"
#include "tc_capture.skel.h"
#include "tc_capture_ct.skel.h"
#include "tc_filter.skel.h"
#include "tc_filter_ct.skel.h"

namespace netctl::tc {

using datapath::Capture;
using datapath::FilterPoint;
using datapath::Generation;
using datapath::GenerationRequest;
using datapath::LivePoint;
using datapath::LoadedFilter;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;
using Where = bpf::TcxPlace::Where;

namespace {

constexpr const char* program_name = "tc_filter";

/// clsact orders filters by priority, a 16-bit number. The kernel gives 49152 to the first filter that
/// does not ask for one.
constexpr std::uint32_t middle_priority = 49152, highest_priority = 65535;
constexpr std::uint32_t filter_handle = 1;

Direction direction_of(const nc_point& point) {
    return point.flags & NC_POINT_EGRESS ? Direction::egress : Direction::ingress;
}

std::string title(const std::string& interface, Direction direction) {
    return fmt::format("{} {}", interface, to_string(direction));
}

bool has_rate(const Rule& rule) {
    return std::any_of(rule.actions.begin(), rule.actions.end(),
                       [](const Action& action) { return action.kind == ActionKind::rate; });
}

/// Chooses how the rates of this generation are kept.
Result<> choose_rates(PointState& state, const sys::Interface& interface) {
    state.point.flags &= ~static_cast<__u32>(NC_POINT_DEPARTURE);
    if (direction_of(state.point) == Direction::egress &&
        NETCTL_TRY(sys::leaves_through_fq(interface.index)))
        state.point.flags |= NC_POINT_DEPARTURE;
    return {};
}

/// Says how rates are kept where that is not as one may expect. `before` are the rules so far.
void note_rates(const PointState& state, const PointState* before, const std::string& interface,
                std::vector<std::string>& notes) {
    if (state.point.flags & NC_POINT_DEPARTURE)
        return;
    const bool news = std::any_of(state.rules.begin(), state.rules.end(), [&](const auto& added) {
        return has_rate(added.rule) &&
               (!before ||
                std::none_of(before->rules.begin(), before->rules.end(), [&](const auto& old) {
                    return old.rule.id == added.rule.id && has_rate(old.rule);
                }));
    });
    if (!news)
        return;
    if (direction_of(state.point) == Direction::ingress)
        notes.push_back(
            "rates drop what comes too early: packets that have arrived are not delayed");
    else
        notes.push_back(
            fmt::format("rates drop what comes too early, since {} does not send through "
                        "the qdisc fq: `tc qdisc replace dev {} root fq` before a "
                        "change of rules, or `attach --setup-fq`, has them delay it",
                        interface, interface));
}

std::vector<Rule> rules_of(const PointState& state) {
    std::vector<Rule> rules;
    for (const auto& installed : state.rules)
        rules.push_back(installed.rule);
    return rules;
}

// ---- tcx ----

/// The program that the user means by an id or a name.
Result<std::uint32_t> find_neighbour(const std::vector<bpf::TcxProgram>& chain,
                                     const std::string& text, const std::string& place) {
    std::uint32_t id = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), id);
    const bool is_id = status == std::errc{} && end == text.data() + text.size();
    std::vector<std::uint32_t> found;
    std::string present;
    for (const bpf::TcxProgram& program : chain) {
        if (is_id ? program.id == id : program.name == text)
            found.push_back(program.id);
        present +=
            fmt::format("{}'{}' (id {})", present.empty() ? "" : ", ", program.name, program.id);
    }
    if (found.size() == 1)
        return found.front();
    if (found.empty())
        return Error::failed(fmt::format("no program '{}' is attached to {}", text, place),
                             present.empty() ? "there is none at all" : "there are: " + present);
    return Error::failed(
        fmt::format("{} programs '{}' are attached to {}", found.size(), text, place),
        "name one by its id: " + present);
}

Result<bpf::Link> attach_tcx(const sys::Interface& interface, const bpf::Program& program,
                             const AttachRequest& request,
                             const std::vector<bpf::TcxProgram>& chain) {
    const Place place = request.place.value_or(Place{});
    bpf::TcxPlace where{place.where, 0};
    if (!place.neighbour.empty())
        where.program_id = NETCTL_TRY(
            find_neighbour(chain, place.neighbour, title(interface.name, request.direction)));
    auto link = bpf::attach_tcx(interface.index, request.direction, program, where);
    if (!link && link.error().code == ERANGE)
        return Error::failed(fmt::format("{} has as many tcx programs as the kernel takes",
                                         title(interface.name, request.direction)));
    if (!link)
        return std::move(link).error().within(title(interface.name, request.direction));
    return link;
}

// ---- clsact ----

/// Marks that the qdisc clsact of an interface is netctl's, beside the directions of the interface: a
/// directory, since bpffs holds no plain files.
std::string clsact_mark(std::uint32_t ifindex) {
    return fmt::format("clsact-{}", ifindex);
}

/// Finds a place for a filter: the priority that was asked for, or one by --first and --last.
Result<std::uint32_t> choose_priority(const AttachRequest& request,
                                      const sys::Interface& interface) {
    const auto filters = NETCTL_TRY(
        sys::list_clsact_filters(interface.index, request.direction == Direction::egress));
    const std::string where = title(interface.name, request.direction);
    if (request.priority) {
        // One priority holds filters of one kind; two of ours would share the handle.
        for (const sys::ClsactFilter& filter : filters)
            if (filter.priority == *request.priority)
                return Error::failed(
                    fmt::format("priority {} of {} is taken by a filter of kind {}, handle {:#x}",
                                filter.priority, where, filter.kind, filter.handle),
                    fmt::format("give another one; `tc filter show dev {}` lists them all", where));
        return *request.priority;
    }
    if (filters.empty())
        return middle_priority;
    const bool first = request.place && request.place->where == Where::first;
    const std::uint32_t edge = first ? filters.front().priority - 1 : filters.back().priority + 1;
    if (edge == 0 || edge > highest_priority)
        return Error::failed(fmt::format("{} has a filter of the {} priority there is", where,
                                         first ? "first" : "last"),
                             "choose one with --priority");
    return edge;
}

/// Removes a clsact qdisc of our own that nobody has a filter in. `point_root` is the interface's
/// directory.
Result<> tidy_clsact(const bpf::PinDir& point_root, std::uint32_t ifindex, std::string_view name,
                     std::vector<std::string>& notes) {
    const std::string mark = clsact_mark(ifindex);
    if (!NETCTL_TRY(point_root.look_for(mark)))
        return {};
    std::size_t filters = 0;
    for (const bool egress : {false, true})
        filters += NETCTL_TRY(sys::list_clsact_filters(ifindex, egress)).size();
    const bool other_direction = datapath::is_pinned(point_root.sub("ingress")) ||
                                 datapath::is_pinned(point_root.sub("egress"));
    if (filters == 0)
        NETCTL_TRY(bpf::destroy_clsact(ifindex));
    else if (!other_direction)
        notes.push_back(fmt::format("the qdisc clsact of {} is left in place: others have filters "
                                    "in it",
                                    name));
    if (filters == 0 || !other_direction)
        NETCTL_TRY(point_root.sub(mark).remove_all());
    return {};
}

/// Attaches a filter and pins its program.
Result<> attach_clsact(const bpf::PinDir& dir, const bpf::PinDir& point_root,
                       const sys::Interface& interface, const nc_point& point,
                       const bpf::Program& program, Transaction& transaction) {
    const std::string mark = clsact_mark(interface.index);
    const bool marked = NETCTL_TRY(point_root.look_for(mark));
    // First the mark, then the qdisc: killed in between, there is a mark too many, not a qdisc.
    transaction.or_else(fmt::format("the qdisc clsact of {}", interface.name), [=]() -> Result<> {
        std::vector<std::string> ignored;
        if (!marked)
            NETCTL_TRY(tidy_clsact(point_root, interface.index, interface.name, ignored));
        point_root.remove_if_empty();
        return {};
    });
    NETCTL_TRY(point_root.sub(mark).create());
    auto made = bpf::create_clsact(interface.index);
    if (!marked && !(made.has_value() && *made))
        NETCTL_TRY(point_root.sub(mark).remove_all());
    if (!made.has_value())
        return std::move(made).error().within(interface.name);
    // First the pin, then the filter: so there is never a filter that no pin leads to.
    NETCTL_TRY(FilterPoint::make_dir(dir, transaction));
    transaction.or_else(dir.path_of("program"), [dir] { return dir.unpin("program"); });
    NETCTL_TRY(dir.replace("program", program));
    return bpf::attach_filter(datapath::filter_of(point), program);
}

// ---- the point ----

/// The directory of both directions of an interface.
bpf::PinDir interface_dir(const Root& root, const std::string& netns,
                          const std::string& interface) {
    return root.dir().sub("tc").sub(datapath::point_name(netns, interface));
}

/// The classifier of one direction of an interface.
class Point : public FilterPoint {
  public:
    Point(RootOptions root, std::string netns, std::string interface, Direction direction)
        : FilterPoint(Hook::tc, std::move(root), std::move(netns), std::move(interface)),
          direction_(direction) {}

    bpf::PinDir dir(const Root& root) const override {
        return interface_dir(root, netns(), interface()).sub(to_string(direction_));
    }

    Result<LoadedFilter> load(const Root& root, PointState& state, const LivePoint* previous,
                              bool simulate) const override {
        const bool tracked = datapath::ask_conntrack(state.rules);
        const auto [skeleton, object] =
            NETCTL_TRY(tracked ? bpf::open_object<tc_filter_ct>() : bpf::open_object<tc_filter>());
        const std::uint32_t leaving = is_egress() ? 1 : 0;
        if (tracked)
            NETCTL_TRY(object.set_constant("leaving", {&leaving, 1}));
        const std::uint32_t ether = state.point.flags & NC_POINT_ETHER ? 1 : 0;
        const std::uint32_t by_departure = state.point.flags & NC_POINT_DEPARTURE ? 1 : 0;
        NETCTL_TRY(object.set_constant("has_ether", {&ether, 1}));
        NETCTL_TRY(object.set_constant("by_departure", {&by_departure, 1}));
        const GenerationRequest request{program_name,
                                        Hook::tc,
                                        &state,
                                        previous,
                                        [](const std::string& device) -> Result<std::uint32_t> {
                                            return NETCTL_TRY(sys::find_interface(device)).index;
                                        },
                                        simulate};
        Generation generation = NETCTL_TRY(datapath::load_generation(object, root, request));
        return LoadedFilter{skeleton, object, std::move(generation)};
    }

    Error not_attached() const override {
        return Error::failed(fmt::format("no tc classifier is attached to {}", title()),
                             fmt::format("attach one with `netctl tc attach {}`", title()));
    }

    nc_verdict first_default() const override { return NC_VERDICT_NEXT; }

  protected:
    std::string title() const override { return tc::title(interface(), direction_); }

    bool is_egress() const override { return direction_ == Direction::egress; }
    Error attached_already() const override {
        return Error::failed(
            fmt::format("netctl's classifier is attached to {} already", title()),
            "`netctl tc rule` changes its rules, `netctl tc set` its default; detach it first to "
            "change its place");
    }

    Error lost() const override {
        return Error::failed(
            fmt::format("the classifier of {} is attached no more: its rules cannot be changed "
                        "until it is attached again",
                        title()),
            fmt::format("`netctl tc attach {}`; `detach` forgets its rules", title()));
    }

    Result<> prepare(PointState& state) const override {
        const sys::Interface present = NETCTL_TRY(sys::find_interface(interface()));
        NETCTL_TRY(check_rules(rules_of(state), present, direction_));
        return choose_rates(state, present);
    }

    Result<> swap(const LivePoint& live, const bpf::Program& program) const override {
        return live.link ? live.link.update(program) : bpf::replace_filter(live.filter, program);
    }

    void complete(nc_point& point, const LivePoint& live) const override {
        const auto present = sys::find_interface(interface());
        point.mode = static_cast<__u32>(live.link ? Mode::tcx : Mode::clsact);
        point.flags = direction_ == Direction::egress ? NC_POINT_EGRESS : 0;
        if (present && present->ethernet)
            point.flags |= NC_POINT_ETHER;
        point.tc_priority = live.filter.priority;
        point.tc_handle = live.filter.handle;
    }

    void tell(const PointState& before, const PointState& after,
              std::vector<std::string>& notes) const override {
        note_rates(after, &before, interface(), notes);
    }

    Result<> run(const bpf::Program& program, std::span<const std::uint8_t> frame) const override {
        return bpf::test_run_skb(program, frame);
    }

  private:
    Direction direction_;
};

// ---- captures ----

/// A place in the chain of tcx.
class InFront : public Capture::Attachment {
  public:
    InFront(bpf::Link link, std::string interface)
        : link_(std::move(link)), interface_(std::move(interface)) {}
    Result<> look_after() override {
        if (NETCTL_TRY(link_.info()).ifindex == 0)
            return Error::failed(fmt::format("{} is gone", interface_));
        return {};
    }
    void detach() override { link_ = {}; }

  private:
    bpf::Link link_;
    std::string interface_;
};

// ---- fq ----

Result<> remove_own_fq(std::uint32_t ifindex) {
    if (!sys::is_own_fq(NETCTL_TRY(sys::root_qdisc(ifindex))))
        return {};
    return sys::remove_root(ifindex);
}

/// Puts fq on the interface. Only where the kernel's default stands: what somebody chose is his.
Result<> setup_fq(const sys::Interface& interface, Transaction& transaction,
                  std::vector<std::string>& notes) {
    if (NETCTL_TRY(sys::leaves_through_fq(interface.index)))
        return {};
    const sys::Qdisc root = NETCTL_TRY(sys::root_qdisc(interface.index));
    if (root.handle != 0)
        return Error::failed(
            fmt::format("{} has a qdisc of somebody else's: {} {:x}:", interface.name, root.kind,
                        root.handle >> 16),
            fmt::format("`tc qdisc replace dev {} root fq` puts fq in its place", interface.name));
    if (root.kind == "mq")
        return Error::failed(
            fmt::format("{} has several queues, and one fq for all of them would slow it down",
                        interface.name),
            fmt::format("`sysctl net.core.default_qdisc=fq` and `tc qdisc replace dev {} root mq` "
                        "put fq into each",
                        interface.name));
    auto made = sys::create_fq(interface.index);
    if (!made) {
        Error error = std::move(made).error();
        error.kind = ErrorKind::unsupported;
        error.hint = "the kernel may lack sch_fq; without it, rates drop what comes too early";
        return std::move(error).within(interface.name);
    }
    transaction.or_else(fmt::format("the qdisc fq of {}", interface.name),
                        [index = interface.index] { return sys::remove_root(index); });
    notes.push_back(fmt::format("{} sends through the qdisc fq now; `detach` takes it away again",
                                interface.name));
    return {};
}

} // namespace

std::string to_string(Direction direction) {
    return direction == Direction::ingress ? "ingress" : "egress";
}

std::string to_string(Mode mode) {
    switch (mode) {
    case Mode::tcx: return "tcx";
    case Mode::clsact: return "clsact";
    case Mode::none: break;
    }
    return "none";
}

Result<> check_keys(const Rule& rule, const sys::Interface& interface, Direction direction) {
    if (direction == Direction::egress && rule.find(Key::socket) != nullptr)
        return Error::failed(
            fmt::format("{}: 'socket' is about packets that arrive, and {} leave", to_string(rule),
                        title(interface.name, direction)),
            fmt::format("ask at `{}`, or in xdp", title(interface.name, Direction::ingress)));
    return {};
}

Result<> check_rules(const std::vector<Rule>& rules, const sys::Interface& interface,
                     Direction direction) {
    std::map<std::string, Result<sys::Interface>> targets;
    for (const Rule& rule : rules) {
        NETCTL_TRY(check_keys(rule, interface, direction));
        if (direction == Direction::egress && rule.actions.back().kind == ActionKind::reject)
            return Error::failed(
                fmt::format("{}: 'reject' answers packets that arrive, and {} leave",
                            to_string(rule), title(interface.name, direction)),
                fmt::format("write 'drop', or reject at `{}`, or in xdp; 'netctl policy' refuses "
                            "what this host's processes connect to",
                            title(interface.name, Direction::ingress)));
        for (const Action& action : rule.actions) {
            if (action.device.empty())
                continue;
            auto known = targets.find(action.device);
            if (known == targets.end())
                known = targets.emplace(action.device, sys::find_interface(action.device)).first;
            if (!known->second) // load() says of what was in force that it is gone, and refuses new
                continue;
            const sys::Interface& target = *known->second;
            const auto refuse = [&](const std::string& why, const std::string& hint) -> Error {
                return Error::failed(fmt::format("{}: {}", to_string(rule), why), hint);
            };
            const Direction towards = action.to_ingress ? Direction::ingress : Direction::egress;
            if (target.index == interface.index && towards == direction)
                return refuse(fmt::format("the packet would come by here again, without end"),
                              fmt::format("name another interface than {}", interface.name));
            if (target.ethernet && !interface.ethernet)
                return refuse(fmt::format("packets of {} have no Ethernet header, which {} needs",
                                          interface.name, target.name),
                              "route them instead");
        }
    }
    return {};
}

std::unique_ptr<FilterPoint> Controller::point(const std::string& interface,
                                               Direction direction) const {
    return std::make_unique<Point>(root_, netns_, interface, direction);
}

Result<AttachReport> Controller::attach(const AttachRequest& request) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    AttachReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_));
    const sys::Interface interface = NETCTL_TRY(sys::find_interface(request.interface));
    if (!interface.ethernet && !interface.layer3)
        return Error::unsupported(
            fmt::format("{} has link headers that netctl does not know", interface.name),
            "it knows Ethernet, and devices whose packets begin with the IP header");
    if (request.setup_fq && request.direction == Direction::ingress)
        return Error::usage("--setup-fq is about what leaves: it goes with egress");
    Point filter(root_, netns_, interface.name, request.direction);
    if (request.dared)
        filter.dare();
    filter.when_ready(request.ready);
    const auto left = NETCTL_TRY(filter.left_behind(root, report.notes));
    const bpf::PinDir dir = filter.dir(root);

    const auto chain = NETCTL_TRY(bpf::query_tcx(interface.index, request.direction));
    report.mode = request.mode.value_or(chain ? Mode::tcx : Mode::clsact);
    if (report.mode == Mode::tcx && !chain)
        return Error::unsupported("this kernel has no tcx", "--mode clsact works on it");
    if (report.mode == Mode::tcx && request.priority)
        return Error::usage("tcx has no priorities",
                            "--first, --last, --before and --after tell the place; --mode clsact "
                            "takes a priority");
    if (report.mode == Mode::clsact && request.place && !request.place->neighbour.empty())
        return Error::usage("clsact orders filters by priority, not by program",
                            "use --priority, --first or --last");
    if (!request.mode && report.mode == Mode::clsact)
        report.notes.push_back("attached through clsact, since this kernel has no tcx");

    PointState state = NETCTL_TRY(filter.next_state(root, left, request.settings, interface));
    nc_point& point = state.point;
    point.mode = static_cast<__u32>(report.mode);
    point.flags = 0;
    if (request.direction == Direction::egress)
        point.flags |= NC_POINT_EGRESS;
    if (interface.ethernet)
        point.flags |= NC_POINT_ETHER;
    point.tc_priority = point.tc_handle = 0;
    if (report.mode == Mode::clsact) {
        point.tc_priority = NETCTL_TRY(choose_priority(request, interface));
        point.tc_handle = filter_handle;
    }
    NETCTL_TRY(check_rules(rules_of(state), interface, request.direction));
    bpf::Link link;
    Transaction transaction(report.notes);
    if (request.setup_fq)
        NETCTL_TRY(setup_fq(interface, transaction, report.notes));
    NETCTL_TRY(choose_rates(state, interface));

    const LoadedFilter loaded =
        NETCTL_TRY(filter.load(root, state, left ? &*left : nullptr, false));
    const bpf::Program& program = loaded.generation.program;
    report.program_id = NETCTL_TRY(program.info()).id;
    NETCTL_TRY(filter.ready());
    const bpf::PinDir point_root = interface_dir(root, netns_, interface.name);
    transaction.or_else(point_root.path(), [=]() -> Result<> {
        point_root.remove_if_empty();
        return {};
    });
    if (report.mode == Mode::tcx) {
        link = NETCTL_TRY(attach_tcx(interface, program, request, *chain));
        NETCTL_TRY(FilterPoint::make_dir(dir, transaction));
        NETCTL_TRY(FilterPoint::pin_link(dir, link, transaction));
    } else {
        NETCTL_TRY(attach_clsact(dir, point_root, interface, point, program, transaction));
    }
    return std::move(transaction).commit([&](Aftermath& after) {
        // Of a point that was attached the other way.
        after.tidy("an older pin", dir.unpin(report.mode == Mode::tcx ? "program" : "link"));
        after.tidy("the pins of the maps", datapath::publish_pins(dir, program));
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        note_rates(state, nullptr, interface.name, report.notes);
        report.rules = state.rules.size();
        const std::vector<std::string>& notes = loaded.generation.notes;
        report.notes.insert(report.notes.end(), notes.begin(), notes.end());
        return report;
    });
}

Result<DetachReport> Controller::detach(const std::string& interface, Direction direction) const {
    DetachReport report;
    // A namespace that is gone has taken all of it along.
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter_if_there(netns_));
    const LockedRoot root = NETCTL_TRY(LockedRoot::open(root_));
    const Point filter(root_, netns_, interface, direction);
    if (guard)
        NETCTL_TRY(filter.follow(root, report.notes));
    const bpf::PinDir dir = filter.dir(root);
    const bpf::PinDir point_root = interface_dir(root, netns_, interface);
    if (!NETCTL_TRY(datapath::look_pinned(dir))) {
        // What an attach or detach has left that was killed.
        NETCTL_TRY(dir.remove_all());
        if (const auto present = NETCTL_TRY(sys::look_for_interface(interface)); guard && present)
            NETCTL_TRY(tidy_clsact(point_root, present->index, interface, report.notes));
        point_root.remove_if_empty();
        return filter.not_attached();
    }
    const LivePoint live = NETCTL_TRY(filter.open_to_detach(dir));
    const std::uint64_t here = NETCTL_TRY(sys::current_netns_inode());
    const std::uint32_t ifindex =
        live.link_info.ifindex != 0 ? live.link_info.ifindex : live.state.point.ifindex;
    Transaction transaction(report.notes);
    NETCTL_TRY(FilterPoint::take_pins(dir, live, transaction));
    const bool had_link = NETCTL_TRY(FilterPoint::unpin_link(dir));
    if (!had_link && guard && live.link_info.ifindex != 0) {
        NETCTL_TRY(bpf::detach_filter(live.filter));
    } else if (!had_link) {
        NETCTL_TRY(dir.unpin("program"));
    }
    return std::move(transaction).commit([&](Aftermath& after) {
        after.tidy(dir.path(), dir.remove_all());
        // Only where the interface is still the one that we put things on.
        auto present = sys::look_for_interface(interface);
        const std::uint64_t of = live.state.point.netns_inode;
        Result<> tidied;
        if (!present.has_value())
            tidied = std::move(present).error();
        else if (guard && *present && (*present)->index == ifindex && (of == 0 || of == here)) {
            tidied = tidy_clsact(point_root, ifindex, interface, report.notes);
            if (direction == Direction::egress)
                after.tidy("the qdisc fq", remove_own_fq(ifindex));
        }
        // The mark that the qdisc is ours stays as long as it does: the next one goes by it.
        if (tidied && !datapath::is_pinned(point_root.sub("ingress")) &&
            !datapath::is_pinned(point_root.sub("egress")))
            after.tidy(point_root.path(), point_root.remove_all());
        after.tidy("the qdisc clsact", std::move(tidied));
        after.value("the root's generation", root.next_generation(), std::uint64_t{0});
        return report;
    });
}

Status Controller::read_status(const bpf::PinDir& dir) const {
    const datapath::PointName name = datapath::parse_point_name(dir.parent_name());
    const Direction direction =
        dir.name() == to_string(Direction::egress) ? Direction::egress : Direction::ingress;
    auto live = datapath::open_point(dir, Hook::tc);
    Status status;
    if (live.has_value() && *live) {
        static_cast<datapath::FilterStatus&>(status) =
            datapath::read_status(name, std::move(**live), Hook::tc);
    } else {
        status.interface = status.now = name.interface;
        status.netns = name.netns;
        status.trouble = live.has_value() ? "it is pinned no more" : live.error().what;
    }
    status.direction = direction;
    status.mode = static_cast<Mode>(status.settings.mode);
    if (auto neighbours = read_neighbours(status); !neighbours && status.trouble.empty())
        status.trouble = neighbours.error().what;
    return status;
}

Result<> Controller::read_neighbours(Status& status) const {
    const auto guard = sys::NetnsGuard::enter(status.netns);
    const bool here = status.presence == datapath::Presence::attached ||
                      status.presence == datapath::Presence::renamed;
    if (!guard || !here || status.settings.ifindex == 0)
        return {};
    const std::uint32_t ifindex = status.settings.ifindex;
    if (auto chain = NETCTL_TRY(bpf::query_tcx(ifindex, status.direction))) {
        status.has_tcx = true;
        status.chain = std::move(*chain);
    }
    const bool egress = status.direction == Direction::egress;
    status.filters = NETCTL_TRY(sys::list_clsact_filters(ifindex, egress));
    if (egress) {
        status.qdisc = NETCTL_TRY(sys::root_qdisc(ifindex)).kind;
        status.fq_missing = status.settings.flags & NC_POINT_DEPARTURE &&
                            !NETCTL_TRY(sys::leaves_through_fq(ifindex));
    }
    return {};
}

Result<Status> Controller::status(const std::string& interface, Direction direction) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const auto filter = point(interface, direction);
    const bpf::PinDir dir = NETCTL_TRY(filter->find(root));
    if (!datapath::is_pinned(dir))
        return filter->not_attached();
    return read_status(dir);
}

Result<std::vector<Status>> Controller::status_of_all(const std::string& interface) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const std::string wanted = interface_dir(root, netns_, interface).path() + "/";
    std::vector<Status> all;
    for (const bpf::PinDir& dir : datapath::list_points(root, Hook::tc)) {
        const bool named = interface.empty() || dir.path().starts_with(wanted);
        Status one = read_status(dir);
        if (named || (one.netns == netns_ && one.presence == datapath::Presence::renamed &&
                      one.now == interface))
            all.push_back(std::move(one));
    }
    if (!interface.empty() && all.empty())
        return Error::failed(
            fmt::format("no tc classifier is attached to {}", interface),
            fmt::format("attach one with `netctl tc attach {} ingress` or `egress`", interface));
    return all;
}

Result<bool> Controller::has_ether(const std::string& interface, Direction direction) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const LivePoint live = NETCTL_TRY(point(interface, direction)->open(root));
    return (live.state.point.flags & NC_POINT_ETHER) != 0;
}

Result<Capture> Controller::capture(const std::string& interface, Direction direction,
                                    const datapath::CaptureRequest& request) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    const sys::Interface present = NETCTL_TRY(sys::find_interface(interface));
    if (!NETCTL_TRY(bpf::query_tcx(present.index, direction)))
        return Error::unsupported(
            "a capture goes in front of the chain of tcx, which this kernel does not have (6.6)",
            "rules with `log` tell of what they match: `netctl tc log --write FILE`");
    NETCTL_TRY(check_keys(request.rule, present, direction));
    const bool tracked = datapath::asks_conntrack(request.rule);
    const bpf::OwnedObject owner =
        NETCTL_TRY(tracked ? bpf::open_object<tc_capture_ct>() : bpf::open_object<tc_capture>());
    const std::uint32_t leaving = direction == Direction::egress ? 1 : 0;
    const std::uint32_t ether = present.ethernet ? 1 : 0;
    if (tracked)
        NETCTL_TRY(owner.object.set_constant("leaving", {&leaving, 1}));
    NETCTL_TRY(owner.object.set_constant("has_ether", {&ether, 1}));
    NETCTL_TRY(datapath::load_capture(owner.object, NETCTL_TRY(Root::open(root_)), request));
    const bpf::Program program = NETCTL_TRY(owner.object.program("tc_capture"));
    bpf::Link link =
        NETCTL_TRY(bpf::attach_tcx(present.index, direction, program, {Where::first, 0}));
    return Capture(owner, std::make_unique<InFront>(std::move(link), interface), present.ethernet);
}

} // namespace netctl::tc
