// SPDX-License-Identifier: GPL-2.0-only
#include "features/xdp/controller.hpp"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "bpf/pin_dir.hpp"
#include "datapath/generation.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/classify.h"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"
#include "xdp_filter.skel.h"

namespace netctl::xdp {

using datapath::Generation;
using datapath::GenerationRequest;
using datapath::LivePoint;
using datapath::LockedRoot;
using datapath::PointState;
using datapath::Root;

namespace {

constexpr const char* program_name = "xdp_filter";
constexpr std::uint32_t default_log_rate = 10000;

/// Redirect targets of one generation, numbered in the order of their first use.
class Targets {
  public:
    Result<std::uint32_t> resolve(const std::string& device) {
        const sys::Interface interface = NETCTL_TRY(sys::find_interface(device));
        const auto known = std::find(indexes_.begin(), indexes_.end(), interface.index);
        if (known == indexes_.end()) {
            indexes_.push_back(interface.index);
            return static_cast<std::uint32_t>(indexes_.size() - 1);
        }
        return static_cast<std::uint32_t>(known - indexes_.begin());
    }
    const std::vector<std::uint32_t>& indexes() const { return indexes_; }

  private:
    std::vector<std::uint32_t> indexes_;
};

/// Interfaces that the rules name, once each: their number sizes the map before it is made.
std::size_t count_devices(const PointState& state) {
    std::vector<std::string> names;
    for (const auto& installed : state.rules)
        for (const Action& action : installed.rule.actions)
            if (!action.device.empty())
                names.push_back(action.device);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names.size();
}

/// A generation with the object that holds its maps until it is attached.
struct Loaded {
    bpf::Skeleton<xdp_filter> skeleton;
    Generation generation;
};

/// Loads the program for `state`. In the namespace of the interface: targets are looked up there.
Result<Loaded> load(const Root& root, PointState& state, const LivePoint* previous, bool simulate) {
    auto skeleton = NETCTL_TRY(bpf::Skeleton<xdp_filter>::open());
    const bpf::Object object = skeleton.object();
    Targets targets;
    const std::size_t devices = std::max<std::size_t>(count_devices(state), 1);
    NETCTL_TRY(object.set_max_entries("devices", static_cast<std::uint32_t>(devices)));
    const GenerationRequest request{
        program_name,
        Hook::xdp,
        &state,
        previous,
        [&](const std::string& device) { return targets.resolve(device); },
        simulate};
    Generation generation = NETCTL_TRY(datapath::load_generation(object, root, request));
    const bpf::RawMap map = NETCTL_TRY(object.map("devices"));
    for (std::uint32_t i = 0; i < targets.indexes().size(); i++) {
        const std::uint32_t value[2]{targets.indexes()[i], 0}; // bpf_devmap_val: no program
        NETCTL_TRY(map.update(&i, value));
    }
    return Loaded{std::move(skeleton), std::move(generation)};
}

Error taken(const std::string& interface, const bpf::XdpOccupant& occupant) {
    return Error::failed(
        fmt::format("{} already has the XDP program '{}' (id {}, {} mode)", interface,
                    occupant.program_name, occupant.program_id, to_string(occupant.mode)),
        "--replace takes the interface from it; `bpftool prog show id ID` tells more about it");
}

/// What to do about a driver that refuses, by what the kernel says.
std::string native_hint(int code, const sys::Interface& interface) {
    if (code == ERANGE || code == EINVAL)
        return fmt::format("the driver may want a smaller MTU than {} or other offloads (`ip link "
                           "set {} mtu 1500`, `ethtool -K {} lro off`); --mode generic works with "
                           "any",
                           interface.mtu, interface.name, interface.name);
    return "--mode generic works on any interface";
}

Result<bpf::Link> attach_link(const sys::Interface& interface, const bpf::Program& program,
                              const AttachRequest& request, AttachReport& report) {
    const bpf::XdpOccupant occupant = NETCTL_TRY(bpf::query_xdp(interface.index));
    if (occupant.mode != bpf::XdpMode::none) {
        if (!request.replace)
            return taken(interface.name, occupant);
        auto freed = bpf::detach_foreign_xdp(interface.index, occupant.mode);
        if (!freed)
            return Error::failed(fmt::format("cannot take {} from the XDP program '{}' (id {}): {}",
                                             interface.name, occupant.program_name,
                                             occupant.program_id, freed.error().what),
                                 "it is held by a link: end its owner, or remove its pin");
        report.notes.push_back(fmt::format("took {} from the XDP program '{}' (id {})",
                                           interface.name, occupant.program_name,
                                           occupant.program_id));
    }
    if (request.mode != ModeChoice::generic) {
        auto link = bpf::attach_xdp(interface.index, program, bpf::XdpMode::native);
        if (link) {
            report.mode = bpf::XdpMode::native;
            return link;
        }
        if (link.error().code == EBUSY)
            return taken(interface.name, NETCTL_TRY(bpf::query_xdp(interface.index)));
        if (request.mode == ModeChoice::native) {
            Error error = std::move(link).error();
            error.kind = ErrorKind::unsupported;
            error.hint = native_hint(error.code, interface);
            return std::move(error).within(
                fmt::format("{} has no native mode for this program", interface.name));
        }
        report.notes.push_back(fmt::format("{} is attached in generic mode, since native mode is "
                                           "not to be had: {}",
                                           interface.name, link.error().what));
    }
    auto link = bpf::attach_xdp(interface.index, program, bpf::XdpMode::generic);
    if (!link) {
        if (link.error().code == EBUSY)
            return taken(interface.name, NETCTL_TRY(bpf::query_xdp(interface.index)));
        return std::move(link).error().within(interface.name);
    }
    report.mode = bpf::XdpMode::generic;
    return link;
}

/// A point is named after its interface; the same name in another namespace is another interface.
Result<> check_netns(const PointState& state, const std::string& interface,
                     const bpf::PinDir& dir) {
    if (state.point.netns_inode == NETCTL_TRY(sys::current_netns_inode()))
        return {};
    return Error::failed(
        fmt::format("{} at {} is an interface of another network namespace", interface, dir.path()),
        "name the namespace with --netns, or use another --root");
}

/// Pins a link in the place of one whose interface is gone. Killed between its two steps, it leaves
/// `link~new`, which the next attach takes for what it is.
Result<> replace_link(const bpf::PinDir& dir, const bpf::Link& link) {
    NETCTL_TRY(link.pin(dir.path_of("link~new")));
    return dir.rename("link~new", "link");
}

Result<> finish_replacement(const bpf::PinDir& dir) {
    if (!dir.has("link~new"))
        return {};
    return dir.rename("link~new", "link");
}

/// The rules of one attached interface.
class Editor : public datapath::RuleEditor {
  public:
    Editor(std::string root, std::string netns, std::string interface)
        : root_(std::move(root)), netns_(std::move(netns)), interface_(std::move(interface)) {}

    Result<std::vector<datapath::RuleStatus>> rules() override {
        const Status status = NETCTL_TRY(Controller(root_, netns_).status(interface_));
        return status.rules;
    }

    Result<datapath::CommitReport> commit(const Edit& edit) override {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
        datapath::CommitReport report;
        const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, report.notes));
        const bpf::PinDir dir = root.dir().sub("xdp").sub(datapath::point_name(netns_, interface_));
        const auto live = NETCTL_TRY(datapath::open_point(dir, Hook::xdp));
        if (!live)
            return not_attached(interface_);
        // The kernel takes no program into a link whose interface is gone.
        if (live->link_info.ifindex == 0)
            return Error::failed(
                fmt::format("{} is gone, or was: its rules cannot be changed until it is attached "
                            "again",
                            interface_),
                fmt::format("`netctl xdp attach {}` once it is back; `detach` forgets its rules",
                            interface_));
        NETCTL_TRY(check_netns(live->state, interface_, dir));
        PointState state = live->state;
        NETCTL_TRY(edit(state));
        state.point.generation++;
        const Loaded loaded = NETCTL_TRY(load(root, state, &*live, false));
        NETCTL_TRY(live->link.update(loaded.generation.program));
        // From here on the new rules are in force; the rest is tidying up that any writer repeats.
        NETCTL_TRY(datapath::forget_limits(loaded.generation.program, state, Hook::xdp));
        NETCTL_TRY(datapath::publish_pins(dir, loaded.generation.program));
        NETCTL_TRY(root.next_generation());
        report.generation = state.point.generation;
        report.engine = loaded.generation.engine;
        report.rules_apart = loaded.generation.rules_apart;
        report.reason = loaded.generation.reason;
        report.memory = loaded.generation.memory;
        return report;
    }

    static Error not_attached(const std::string& interface) {
        return Error::failed(fmt::format("no XDP filter is attached to {}", interface),
                             fmt::format("attach one with `netctl xdp attach {}`", interface));
    }

  private:
    std::string root_, netns_, interface_;
};

} // namespace

std::string to_string(bpf::XdpMode mode) {
    switch (mode) {
    case bpf::XdpMode::native: return "native";
    case bpf::XdpMode::generic: return "generic";
    case bpf::XdpMode::offload: return "offload";
    case bpf::XdpMode::none: break;
    }
    return "none";
}

bpf::PinDir Controller::point_dir(const Root& root, const std::string& interface) const {
    return root.dir().sub("xdp").sub(datapath::point_name(netns_, interface));
}

Result<LivePoint> Controller::open_live(const Root& root, const std::string& interface) const {
    auto live = NETCTL_TRY(datapath::open_point(point_dir(root, interface), Hook::xdp));
    if (!live)
        return Editor::not_attached(interface);
    return std::move(*live);
}

Result<AttachReport> Controller::attach(const AttachRequest& request) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    AttachReport report;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, report.notes));
    const sys::Interface interface = NETCTL_TRY(sys::find_interface(request.interface));
    if (!interface.ethernet)
        return Error::unsupported(fmt::format("{} is no Ethernet device", interface.name),
                                  "netctl tc works on devices without Ethernet headers");
    const bpf::PinDir dir = point_dir(root, interface.name);
    NETCTL_TRY(finish_replacement(dir));
    const auto live = NETCTL_TRY(datapath::open_point(dir, Hook::xdp));
    if (live && live->link_info.ifindex != 0) {
        NETCTL_TRY(check_netns(live->state, interface.name, dir));
        return Error::failed(
            fmt::format("netctl's XDP filter is attached to {} already", interface.name),
            "`netctl xdp rule` changes its rules; detach it first to change its mode or default");
    }

    PointState state = live ? live->state : PointState{};
    nc_point& point = state.point;
    if (!live) {
        point.default_verdict = NC_VERDICT_PASS;
        point.unparsed_verdict = NC_VERDICT_DROP;
        point.log_rate = default_log_rate;
    }
    point.default_verdict =
        request.default_verdict.value_or(static_cast<nc_verdict>(point.default_verdict));
    point.unparsed_verdict =
        request.unparsed_verdict.value_or(static_cast<nc_verdict>(point.unparsed_verdict));
    point.log_rate = request.log_rate.value_or(point.log_rate);
    point.ifindex = interface.index;
    point.netns_inode = NETCTL_TRY(sys::current_netns_inode());
    point.generation++;

    const Loaded loaded = NETCTL_TRY(load(root, state, live ? &*live : nullptr, false));
    const bpf::Program& program = loaded.generation.program;
    const bpf::Link link = NETCTL_TRY(attach_link(interface, program, request, report));
    // The mode is known only now; the program does not read it.
    point.mode = static_cast<__u32>(report.mode);
    const std::uint32_t zero = 0;
    const bpf::RawMap point_map = NETCTL_TRY(program.map("point"));
    NETCTL_TRY(point_map.update(&zero, &point));

    // The link's pin comes first: with it everything can be found, without it nothing is attached
    // once this process ends.
    NETCTL_TRY(dir.create());
    NETCTL_TRY(live ? replace_link(dir, link) : link.pin(dir.path_of("link")));
    NETCTL_TRY(datapath::publish_pins(dir, program));
    NETCTL_TRY(root.next_generation());
    report.program_id = NETCTL_TRY(program.info()).id;
    report.rules = state.rules.size();
    return report;
}

Result<> Controller::detach(const std::string& interface) const {
    std::vector<std::string> notes;
    const LockedRoot root = NETCTL_TRY(LockedRoot::acquire(root_, notes));
    const bpf::PinDir dir = point_dir(root, interface);
    if (!dir.has("link")) {
        NETCTL_TRY(dir.remove_all()); // an attach that was killed may have left the directory
        return Editor::not_attached(interface);
    }
    NETCTL_TRY(datapath::remove_pins(dir));
    NETCTL_TRY(dir.unpin("link"));
    NETCTL_TRY(dir.remove_all());
    NETCTL_TRY(root.next_generation());
    return {};
}

Result<Status> Controller::read_status(const bpf::PinDir& dir) const {
    const datapath::PointName name = datapath::parse_point_name(dir.name());
    auto live = NETCTL_TRY(datapath::open_point(dir, Hook::xdp));
    if (!live)
        return Editor::not_attached(name.interface);
    Status status{NETCTL_TRY(datapath::read_status(name, std::move(*live)))};
    status.mode = static_cast<bpf::XdpMode>(status.settings.mode);
    return status;
}

Result<Status> Controller::status(const std::string& interface) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    return read_status(point_dir(root, interface));
}

Result<std::vector<Status>> Controller::status_of_all() const {
    const Root root = NETCTL_TRY(Root::open(root_));
    std::vector<Status> all;
    for (const bpf::PinDir& dir : datapath::list_points(root, Hook::xdp))
        all.push_back(NETCTL_TRY(read_status(dir)));
    return all;
}

Result<std::unique_ptr<datapath::RuleEditor>> Controller::edit(const std::string& interface) const {
    return std::unique_ptr<datapath::RuleEditor>(
        std::make_unique<Editor>(root_, netns_, interface));
}

Result<> Controller::follow_log(const std::string& interface, const datapath::HandleEvent& handle,
                                const std::function<bool()>& idle) const {
    const Root root = NETCTL_TRY(Root::open(root_));
    const LivePoint live = NETCTL_TRY(open_live(root, interface));
    return datapath::follow_log(point_dir(root, interface), live, interface, handle, idle);
}

Result<> Controller::simulate(const std::string& interface, const datapath::NextFrame& next,
                              const datapath::HandleSimulated& handle) const {
    const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns_));
    const Root root = NETCTL_TRY(Root::open(root_));
    LivePoint live = NETCTL_TRY(open_live(root, interface));
    const Loaded loaded = NETCTL_TRY(load(root, live.state, &live, true));
    const bpf::RawMap result = NETCTL_TRY(loaded.skeleton.object().map("result"));
    const datapath::RunFrame run = [&](std::span<const std::uint8_t> frame) -> Result<> {
        NETCTL_TRY(bpf::test_run(loaded.generation.program, frame));
        return {};
    };
    return datapath::run_simulation(live.state, result, next, run, handle);
}

} // namespace netctl::xdp
