// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/usdt/command.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/json.hpp"
#include "features/trace/func/command.hpp"
#include "features/trace/line_writer.hpp"
#include "features/trace/selection.hpp"
#include "features/trace/usdt/probes.hpp"

namespace netctl::trace::usdt {

namespace {

Result<int> list(const std::vector<ProbeFile>& files, Context& context) {
    LineWriter lines(context.out);
    TextTable table({{Text::format("PROBE")},
                     {Text::format("PLACES"), true},
                     {Text::format("ARGUMENTS")},
                     {Text::format("FILE")}});
    for (const ProbeFile& file : files) {
        /// Of places of one probe, the arguments may lie elsewhere: those of the first are told.
        std::map<std::pair<std::string, std::string>, std::pair<const sys::UsdtProbe*, int>> probes;
        for (const sys::UsdtProbe& probe : file.probes) {
            auto& one = probes.try_emplace({probe.provider, probe.name}, &probe, 0).first->second;
            ++one.second;
        }
        for (const auto& [name, one] : probes) {
            const auto& [probe, places] = one;
            if (context.out.json())
                lines.pending() += Text::format("{}\n", Json{{"event", "probe"},
                                                             {"file", file.file.path},
                                                             {"provider", probe->provider},
                                                             {"name", probe->name},
                                                             {"arguments", probe->arguments},
                                                             {"places", places},
                                                             {"semaphore", probe->semaphore != 0}}
                                                            .dump());
            else
                table.row({Text(probe->provider + ":" + probe->name), Text(std::to_string(places)),
                           Text(probe->arguments.empty() ? std::string("-") : probe->arguments),
                           Text(file.file.path)});
        }
    }
    if (!context.out.json())
        lines.pending() += table.render();
    lines.write();
    return 0;
}

Result<int> usdt(const Arguments& arguments, Context& context) {
    const std::uint32_t pid = NETCTL_TRY(parse_pid(arguments));
    if (arguments.has("list") != arguments.rest().empty())
        return Error::usage(arguments.has("list") ? "--list takes no PROBE: it shows all of them"
                                                  : "PROBE is missing: which one?",
                            "PROVIDER:NAME, PROVIDER:BEGIN..DONE, or --list");
    std::vector<ProbeFile> files = NETCTL_TRY(find_probe_files(arguments.get("file"), pid));
    if (arguments.has("list"))
        return list(files, context);
    const bool pairs =
        std::any_of(arguments.rest().begin(), arguments.rest().end(),
                    [](const std::string& word) { return word.find("..") != word.npos; });
    if (!pairs && arguments.has("slower"))
        return Error::usage("--slower is for what lies between two probes", "PROVIDER:BEGIN..DONE");
    const func::Look look = pairs ? func::Look::times : func::Look::calls;
    return func::report(arguments, look, context,
                        [&]() { return find_probes(arguments.rest(), std::move(files), look); });
}

} // namespace

Command usdt_command() {
    std::vector<Option> options = func::report_options();
    options.insert(options.begin(),
                   {{"list", "", "show the probes that there are, with their arguments", {}},
                    {"file",
                     "FILE",
                     "of this program or library: a path, or its name; without it, of all that "
                     "--pid has mapped",
                     {}}});
    return {.name = "usdt",
            .summary = "how often probes of programs are come by, and the time between two",
            .description =
                "Probes are what programs have built in for tracers (USDT, dtrace): "
                "PROVIDER:NAME, of which NAME may be a glob, is counted; of "
                "PROVIDER:BEGIN..DONE the time from one to the other in the same thread is taken, "
                "as a histogram, or with --slower one by one. --list shows those of a file or of a "
                "process.",
            .positionals = {{"PROBE", Positional::Count::rest}},
            .options = std::move(options),
            .run = usdt};
}

} // namespace netctl::trace::usdt
