// SPDX-License-Identifier: GPL-2.0-only
//
// An attachment point of a packet filter: its name, its directory of pins, and the state that its
// program carries. The pinned link leads to the program, and the program to all its maps, so the
// link alone is the truth; the other pins are there for other tools and are made anew by every
// commit (invariants I1 and I2).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "bpf/tc.hpp"
#include "core/rule.hpp"
#include "datapath/root.hpp"
#include "netctl/abi/rule.h"

namespace netctl::datapath {

/// Finds a map of a program, or among pins, by its name.
using FindMap = std::function<Result<bpf::RawMap>(const std::string& name)>;

constexpr std::uint32_t not_installed = 0xffffffff;

/// A rule as it is in force: with its id, the slot of its counter, and where its action is.
struct InstalledRule {
    Rule rule;
    std::uint32_t slot = 0;
    std::uint32_t action = not_installed; ///< index in the program's `actions`
    /// Its stored text, if this version cannot read it, and why. `rule` has its id only, and cannot be
    /// compiled: it may be listed, and deleted.
    std::string unreadable{}, why{};
};

/// What a program carries: the point's settings and its rules in order.
struct PointState {
    nc_point point{};
    std::vector<InstalledRule> rules;
    /// How many rules the program was made with. Their actions come first, in their order then;
    /// what was added since has actions behind these.
    std::uint32_t compiled = 0;
    std::vector<InstalledRule> gone; ///< of the compiled ones: no longer in their place
};

/// Whether what was met while stored things were read may be otherwise the next time: an error of the kernel's that
/// is not about what stands there. So it is no reason to take them for unreadable.
bool could_pass(const Error& error);

/// Fails if one of the rules cannot be read; the error names it.
Result<> check_readable(const std::vector<InstalledRule>& rules);

/// Reads the state out of a program's maps: what it was made with, and the changes since. `hook` is the
/// language of its rules.
Result<PointState> read_state(const bpf::Program& program, Hook hook);

/// Writes rules as records for the map `rules`.
std::vector<nc_rule_text> encode_rules(const std::vector<InstalledRule>& rules);
/// Whatever stands in the records: what is no rule is marked as unreadable.
std::vector<InstalledRule> decode_rules(const std::vector<nc_rule_text>& records, Hook hook);

/// IFACE, or NETNS:IFACE for another namespace; encoded as a name in bpffs.
std::string point_name(const std::string& netns, const std::string& interface);

struct PointName {
    std::string netns; ///< empty: the one netctl runs in
    std::string interface;
};
/// What point_name() made a name of.
PointName parse_point_name(const std::string& name);

/// A point that has been attached before. A clsact filter has no link, nor has an XDP program that took the
/// place of another one; its `link_info` is made up from what is attached: id 0, and ifindex 0 if it is
/// attached no more.
struct LivePoint {
    bpf::Link link;
    bpf::LinkInfo link_info;
    bpf::Program program;
    PointState state;
    bpf::TcFilter filter{}; ///< clsact: where it is, if it is there
    /// Why the state cannot be read, if it cannot; it has as much of it as could be read then.
    std::optional<Error> trouble{};
};

/// A link on its way into the place of one whose interface is gone: it goes before that one.
constexpr const char* next_link = "link~new";

/// Whether a point is pinned in `dir`: by its link, or its program with clsact.
bool is_pinned(const bpf::PinDir& dir);
/// The same, where a no has something removed: an error if it cannot be known.
Result<bool> look_pinned(const bpf::PinDir& dir);

/// Opens what is pinned in `dir`, whatever stands in its maps; nothing if nothing is pinned. With clsact the pinned program only tells
/// where its filter is, and the filter leads to the program that is in force; if there is no filter,
/// the pinned program has the last rules.
Result<std::optional<LivePoint>> open_point(const bpf::PinDir& dir, Hook hook);

/// Every point of a hook under this root, by its directory: for `status`, and for finding the
/// users of a set.
std::vector<bpf::PinDir> list_points(const Root& root, Hook hook);

/// Whether a point of this namespace is attached, or left behind.
Result<bool> has_points_of(const RootOptions& options, const std::string& netns);

/// "xdp/eth0 rule 7" for each rule of any point that uses the set, or may, as its text cannot be read.
/// Points whose rules nobody can read are left out: what they use lives on without its pins.
Result<std::vector<std::string>> users_of_set(const Root& root, const std::string& set);

/// Where clsact has the filter of a point.
bpf::TcFilter filter_of(const nc_point& point);

// ---- counters ----

/// Sums over all CPUs of the counters in `slots`, in their order.
Result<std::vector<nc_counter>> read_counters(const bpf::Program& program,
                                              const std::vector<std::uint32_t>& slots);
/// Sum over all CPUs of a program's `stats`.
Result<nc_stats> read_stats(const bpf::Program& program);
/// A map that outlives a commit. Programs of before there was `reject`, `over add` or `syncookie` lack theirs.
Result<std::optional<bpf::RawMap>> find_counting_map(const bpf::Program& program,
                                                     const std::string& name);
/// Sums over all CPUs; all zero if there is no such map.
Result<nc_rejects> read_rejects(const bpf::Program& program);
Result<nc_over_adds> read_over_adds(const bpf::Program& program);
Result<nc_syncookies> read_syncookies(const bpf::Program& program);

} // namespace netctl::datapath
