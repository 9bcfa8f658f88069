// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/applier.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sys/stat.h>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/lines.hpp"
#include "fleet/probe.hpp"
#include "fleet/program.hpp"
#include "sys/replace_file.hpp"

namespace netctl::fleet {

namespace {

namespace fs = std::filesystem;

/// What netctl says on standard error, as one line: its error, or all of it.
std::string last_error(const std::string& text) {
    std::string line;
    for (auto [number, one] : numbered_lines(text)) {
        if (one.starts_with("netctl: "))
            one.remove_prefix(8);
        if (!one.empty())
            line += (line.empty() ? "" : "; ") + std::string(one);
    }
    return line.size() > 500 ? line.substr(0, 500) + "…" : line;
}

} // namespace

Result<std::string> NetctlApplier::netctl(const std::vector<std::string>& words) const {
    std::vector<std::string> argv{options_.program};
    argv.insert(argv.end(), options_.options.begin(), options_.options.end());
    argv.insert(argv.end(), words.begin(), words.end());
    const ProgramEnd end = NETCTL_TRY(run_program(argv, std::chrono::minutes(5)));
    if (end.status == 0)
        return end.output;
    Error error = Error::failed(
        Text::format("netctl {}: {}", words.front(),
                     end.status < 0 ? "it was killed, or took too long" : last_error(end.errors)));
    if (end.status == 2)
        error.kind = ErrorKind::usage;
    if (end.status == 3)
        error.kind = ErrorKind::unsupported;
    return error;
}

Result<AppliedRelease> NetctlApplier::apply(const Rendered& rendered,
                                            const std::set<std::string>& absent,
                                            std::chrono::seconds confirm) {
    const std::string folder = options_.folder + "/candidate";
    std::error_code error;
    fs::remove_all(folder, error);
    if (error || (mkdir(folder.c_str(), 0700) != 0))
        return Error::system(error ? error.value() : errno,
                             Text::format("cannot make the folder {}", folder));
    std::size_t number = 0;
    for (const std::string& file : rendered.files)
        NETCTL_TRY(sys::replace_file(fmt::format("{}/{:04}.yaml", folder, ++number), file, 0600));
    // JSON is YAML, and quotes what needs it.
    const std::string gone = Json{{"absent", absent}}.dump() + "\n";
    NETCTL_TRY(sys::replace_file(folder + "/absent.yaml", absent.empty() ? "\n" : gone, 0600));
    const std::string output = NETCTL_TRY(
        netctl({"--json", "apply", folder, "--confirm", fmt::format("{}s", confirm.count())}));
    const Json json = Json::parse(output, nullptr, false);
    if (!json.is_object() || !json.contains("confirm_id") || !json.contains("changes"))
        return Error::failed("netctl apply printed something else than it should",
                             "are netctl and netctl-fleet of the same version?");
    AppliedRelease applied;
    if (json["confirm_id"].is_string())
        applied.id = json["confirm_id"].get<std::string>();
    for (const Json& change : json["changes"])
        if (change.value("action", "") == "add")
            applied.added.insert(change.value("object", ""));
    return applied;
}

Result<> NetctlApplier::confirm(const std::string& id) {
    NETCTL_TRY(netctl({"confirm", id, "--no-save"})); // keep() does, and tells if it does not work
    return {};
}

Result<> NetctlApplier::roll_back(const std::string& id) {
    NETCTL_TRY(netctl({"rollback", id}));
    return {};
}

Result<> NetctlApplier::keep() {
    const std::string candidate = options_.folder + "/candidate";
    const std::string current = options_.folder + "/current";
    const std::string previous = options_.folder + "/previous";
    std::error_code error;
    fs::remove_all(previous, error);
    if (fs::exists(current))
        fs::rename(current, previous, error);
    if (!error)
        fs::rename(candidate, current, error);
    if (error)
        return Error::system(error.value(), Text::format("cannot move {}", candidate));
    if (!options_.saved.empty())
        NETCTL_TRY(netctl({"save", "--file", options_.saved}));
    return {};
}

Result<> NetctlApplier::reapply() {
    const std::string current = options_.folder + "/current";
    if (fs::exists(current))
        NETCTL_TRY(netctl({"apply", current, "--yes"}));
    return {};
}

Result<> NetctlApplier::probe(const Probe& probe) {
    switch (probe.kind) {
    case Probe::Kind::tcp: return probe_tcp(probe.host, probe.port);
    case Probe::Kind::http: return probe_http(probe.url);
    case Probe::Kind::status: NETCTL_TRY(netctl({"--quiet", "status"})); return {};
    }
    return {};
}

} // namespace netctl::fleet
