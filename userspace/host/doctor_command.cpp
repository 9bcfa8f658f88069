// SPDX-License-Identifier: GPL-2.0-only
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/fd.hpp"
#include "core/json.hpp"
#include "features/xdp/controller.hpp"
#include "host/doctor.hpp"
#include "host/host.hpp"
#include "sys/netns.hpp"

namespace netctl::host {

namespace {

const char* to_string(Answer answer) {
    switch (answer) {
    case Answer::yes: return "yes";
    case Answer::no: return "no";
    case Answer::unknown: break;
    }
    return "unknown";
}

std::vector<std::string> words(const bpf::XdpFeatures& features) {
    std::vector<std::string> words;
    if (features.native)
        words.emplace_back("native");
    if (features.redirect)
        words.emplace_back("redirect");
    if (features.transmit)
        words.emplace_back("transmit");
    if (features.fragments)
        words.emplace_back("fragments");
    return words;
}

/// How much of a host is told: all, or what may be shown to anybody.
enum class Privacy : bool { everything, no_names };

Json program_json(std::uint32_t id, const std::string& name, Privacy privacy) {
    if (privacy == Privacy::no_names)
        return {{"program_id", id}};
    return {{"program_id", id}, {"program_name", name}};
}

Json chain_json(const std::vector<bpf::TcxProgram>& chain, Privacy privacy) {
    Json json = Json::array();
    for (const bpf::TcxProgram& program : chain)
        json.push_back(program_json(program.id, program.name, privacy));
    return json;
}

Json interface_json(const InterfaceHooks& hooks, std::size_t number, Privacy privacy) {
    Json xdp;
    if (hooks.xdp.mode != bpf::XdpMode::none) {
        xdp = program_json(hooks.xdp.program_id, hooks.xdp.program_name, privacy);
        xdp["mode"] = xdp::to_string(hooks.xdp.mode);
    }
    Json features;
    if (hooks.features)
        features = words(*hooks.features);
    return {{"interface",
             privacy == Privacy::no_names ? fmt::format("interface{}", number) : hooks.name},
            {"kind", hooks.kind},
            {"xdp_features", features},
            {"xdp", xdp},
            {"tcx_ingress", chain_json(hooks.ingress, privacy)},
            {"tcx_egress", chain_json(hooks.egress, privacy)}};
}

Json findings_json(const Findings& findings, Privacy privacy) {
    Json abilities = Json::array(), interfaces = Json::array();
    for (const Ability& ability : findings.abilities)
        abilities.push_back({{"area", ability.area},
                             {"name", ability.name},
                             {"about", ability.what},
                             {"required", ability.need == Need::required},
                             {"in_use", ability.in_use},
                             {"answer", to_string(ability.answer)},
                             {"detail", ability.detail},
                             {"remedy", ability.remedy}});
    for (const InterfaceHooks& hooks : findings.interfaces)
        interfaces.push_back(interface_json(hooks, interfaces.size() + 1, privacy));
    return {{"version", findings.version},
            {"kernel", findings.kernel},
            {"healthy", to_string(findings.healthy())},
            {"abilities", abilities},
            {"interfaces", interfaces}};
}

/// Who is there, as in `xdp_filter (12)`.
Text chain_text(const std::vector<bpf::TcxProgram>& chain) {
    Text text;
    for (const bpf::TcxProgram& program : chain)
        text += Text::format("{}{} ({})", text.empty() ? "" : ", ", program.name, program.id);
    return text;
}

Text interfaces_text(const Findings& findings) {
    TextTable table({{"interface"}, {"driver"}, {"xdp"}, {"tcx ingress"}, {"tcx egress"}});
    for (const InterfaceHooks& hooks : findings.interfaces) {
        Text driver = hooks.features ? Text::format("{}", fmt::join(words(*hooks.features), " "))
                                     : Text("not told");
        Text xdp;
        if (hooks.xdp.mode != bpf::XdpMode::none)
            xdp = Text::format("{} ({}), {}", hooks.xdp.program_name, hooks.xdp.program_id,
                               xdp::to_string(hooks.xdp.mode));
        table.row({hooks.name, driver.empty() ? Text("-") : driver, xdp, chain_text(hooks.ingress),
                   chain_text(hooks.egress)});
    }
    return table.render();
}

Text findings_text(const Findings& findings) {
    TextTable table({{"for"}, {"ability"}, {"about"}, {"has"}, {"in use"}});
    Text remedies;
    for (const Ability& ability : findings.abilities) {
        table.row({ability.area, ability.name, ability.what, to_string(ability.answer),
                   ability.in_use ? "yes" : ""});
        if (ability.answer != Answer::yes)
            remedies += Text::format("{} {}: {}\n    {}\n", ability.area, ability.name,
                                     ability.detail, ability.remedy);
    }
    Text text = Text::format("netctl {}, kernel {}\n\n{}", findings.version, findings.kernel,
                             table.render());
    if (!remedies.empty())
        text += Text::format("\n{}", remedies);
    text += Text::format("\n{}", interfaces_text(findings));
    if (!findings.root_was_read)
        text += Text::format("\nwhat is in use is not known: the root cannot be read\n");
    return text;
}

/// Into a file that is not there yet: what stands in another is not lost.
Result<> write_report(const std::string& path, const Findings& findings) {
    const std::string text = json_shown(findings_json(findings, Privacy::no_names).dump(2)) + "\n";
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file)
        return Error::system(errno, Text::format("cannot make {}", path),
                             errno == EEXIST ? "name a file that does not exist" : "");
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t written = write(file.get(), text.data() + done, text.size() - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            const int code = errno;
            unlink(path.c_str());
            return Error::system(code, Text::format("cannot write {}", path));
        }
        done += static_cast<std::size_t>(written);
    }
    return {};
}

Result<int> run(const Arguments& arguments, Context& context) {
    const sys::NetnsGuard netns = NETCTL_TRY(sys::NetnsGuard::enter(context.netns));
    const Findings findings = examine(context.root);
    if (arguments.has("report")) {
        const std::string path = arguments.get("report");
        NETCTL_TRY(write_report(path, findings));
        context.out.done(
            Text::format("{} is written; it names no interface, program, path or address\n", path));
    } else {
        context.out.document(findings_json(findings, Privacy::everything), findings_text(findings));
    }
    switch (findings.healthy()) {
    case Answer::yes: return 0;
    case Answer::no: return 1;
    case Answer::unknown: break;
    }
    return 4;
}

} // namespace

Command doctor_command() {
    return {
        .name = "doctor",
        .summary = "tell what this kernel can do, feature by feature, and what to do about a lack",
        .options =
            {{"report", "FILE", "write a file for a bug report, without names of this host", {}}},
        .run = run};
}

} // namespace netctl::host
