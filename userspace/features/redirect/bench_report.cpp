// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/bench_report.hpp"

#include <algorithm>
#include <cmath>
#include <unistd.h>

#include <fmt/format.h>

#include "core/json.hpp"
#include "features/redirect/connection.hpp"

namespace netctl::redirect {

double median(std::vector<double> values, double at) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(
        std::lround(at * static_cast<double>(values.size() - 1)))];
}

BenchReport::Line Rounds::line(const nc_rd_stats& before, const nc_rd_stats& after) const {
    std::vector<double> control, both = tcp;
    for (std::size_t i = 0; i < tcp.size(); i++) {
        both.push_back(again[i]);
        control.push_back(again[i] / tcp[i]);
    }
    BenchReport::Line line;
    line.tcp = median(both);
    line.redirected = median(redirected);
    // Of what is shown. The median of the rounds' ratios can tell the opposite where they scatter.
    line.ratio = line.redirected / line.tcp;
    line.control_low = median(control, 0.25);
    line.control_high = median(control, 0.75);
    const auto moved = static_cast<double>(after.redirected_messages - before.redirected_messages);
    const auto passed = static_cast<double>(after.passed_messages - before.passed_messages);
    line.share = moved + passed > 0 ? moved / (moved + passed) : 0;
    return line;
}

std::string case_name(const BenchReport::Line& line) {
    if (line.connections == 1)
        return line.placement;
    return fmt::format("{}, {} connections at once", line.placement, line.connections);
}

std::string judge(const std::vector<BenchReport::Line>& lines, bool higher_is_better) {
    std::vector<std::string> better, worse;
    for (const BenchReport::Line& line : lines) {
        // In time less is better, in throughput more.
        const double gain = higher_is_better ? line.ratio : 1 / line.ratio;
        const double low = std::min({line.control_low, 1 / line.control_high, 0.97});
        if (gain > 1 / low)
            better.push_back(case_name(line));
        if (gain < low)
            worse.push_back(case_name(line));
    }
    if (!better.empty() && !worse.empty())
        return fmt::format("it depends: faster with redirection ({}), and slower ({})",
                           fmt::join(better, "; "), fmt::join(worse, "; "));
    if (!better.empty())
        return higher_is_better ? "streams are faster with redirection here"
                                : "worth it here for requests and responses of this size";
    if (!worse.empty())
        return "not worth it here: slower than TCP";
    return higher_is_better ? "streams are as fast as without: they stay on TCP"
                            : "not worth it here: no difference beyond the scatter of TCP itself";
}

Json to_json(const BenchReport::Line& line) {
    return {{"placement", line.placement},
            {"connections", line.connections},
            {"unit", line.unit},
            {"tcp", line.tcp},
            {"redirected", line.redirected},
            {"unix_socket", line.unix_socket != 0 ? Json(line.unix_socket) : Json()},
            {"ratio", line.ratio},
            {"control_low", line.control_low},
            {"control_high", line.control_high},
            {"share_redirected", line.share}};
}

Result<BenchReport>
report_from_cgroup(const std::function<Result<BenchReport>(const sys::Cgroup&)>& work,
                   unsigned timeout_ms, const std::string& parent) {
    const std::string text = NETCTL_TRY(run_in_cgroup(
        [&](const sys::Cgroup& cgroup, int fd) {
            const Result<BenchReport> report = work(cgroup);
            Json json;
            if (!report) {
                json["error"] = report.error().what;
                json["hint"] = report.error().hint;
            } else {
                json["lines"] = Json::array();
                for (const BenchReport::Line& line : report->lines)
                    json["lines"].push_back(to_json(line));
                json["verdict"] = report->verdict;
                json["notes"] = report->notes;
            }
            const std::string told = json.dump();
            if (::write(fd, told.data(), told.size()) < 0)
                _exit(1);
        },
        timeout_ms, parent));
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object())
        return Error::failed(text.empty() ? "the measuring process ended without a word"
                                          : "the measuring process ended early: " + text);
    if (json.contains("error"))
        return Error::failed(json["error"].get<std::string>(), json["hint"].get<std::string>());
    BenchReport report;
    for (const Json& one : json["lines"]) {
        BenchReport::Line line;
        line.placement = one["placement"];
        line.connections = one["connections"];
        line.unit = one["unit"];
        line.tcp = one["tcp"];
        line.redirected = one["redirected"];
        line.unix_socket = one["unix_socket"].is_null() ? 0 : one["unix_socket"].get<double>();
        line.ratio = one["ratio"];
        line.control_low = one["control_low"];
        line.control_high = one["control_high"];
        line.share = one["share_redirected"];
        report.lines.push_back(line);
    }
    report.verdict = json["verdict"];
    report.notes = json["notes"];
    return report;
}

} // namespace netctl::redirect
