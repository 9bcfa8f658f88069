// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "core/json.hpp"
#include "host/host.hpp"
#include "host/top_table.hpp"
#include "sys/clock.hpp"
#include "sys/screen.hpp"
#include "sys/stop.hpp"

namespace netctl::host {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Wanted {
    milliseconds interval{};
    std::uint64_t count = 0; ///< of tables; 0: until interrupted
    TopOrder order = TopOrder::rate;
    std::string filter;
};

/// Reads the kernel's counters when their time has come.
class Readings {
  public:
    explicit Readings(const RootOptions& root, TopTable& table) : root_(root), table_(&table) {}

    Result<> read() {
        const auto now = Clock::now();
        AllCounted counted = NETCTL_TRY(read_counted(root_));
        seconds_ = last_ ? std::chrono::duration<double>(now - *last_).count() : 0;
        last_ = now;
        table_->add(std::move(counted), seconds_);
        return {};
    }
    /// How long until the next reading is due; 0 if it is.
    milliseconds rest(milliseconds interval) const {
        if (!last_)
            return {};
        const auto due = *last_ + interval - Clock::now();
        return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(due));
    }
    double seconds() const { return seconds_; }

  private:
    RootOptions root_;
    TopTable* table_;
    std::optional<Clock::time_point> last_;
    double seconds_ = 0;
};

/// As that of `status`: 4 says that not all could be read.
int exit_status(const TopTable& table) {
    return table.unread().empty() ? 0 : 4;
}

/// For files, pipes and other programs: a table each interval.
Result<int> stream(const Wanted& wanted, const Context& context) {
    TopTable table;
    Readings readings(context.root, table);
    NETCTL_TRY(readings.read());
    constexpr milliseconds step{20}; // between looks whether to stop
    for (std::uint64_t told = 0; wanted.count == 0 || told < wanted.count; told++) {
        while (readings.rest(wanted.interval).count() > 0 && !sys::stop_requested())
            std::this_thread::sleep_for(std::min(step, readings.rest(wanted.interval)));
        if (sys::stop_requested())
            break;
        NETCTL_TRY(readings.read());
        table.arrange(wanted.order, wanted.filter);
        Json rows = Json::array();
        for (const TopRow& row : table.rows())
            rows.push_back(top_row_json(row));
        Text text = told == 0 ? Text() : Text::format("\n");
        constexpr unsigned any_width = 1000;
        const auto lines = table.render(any_width, table.rows().size() + 1, 0, wanted.order, {});
        text += lines.front();
        for (std::size_t at = 1; at < lines.size(); at++)
            text += Text::format("\n{}", lines[at]);
        for (const std::string& unread : table.unread())
            text += Text::format("\ncannot be read: {}", unread);
        if (!context.out.line({{"time", sys::iso_time(sys::wall_ns())},
                               {"seconds", readings.seconds()},
                               {"rows", rows},
                               {"unread", table.unread()}},
                              text))
            break;
    }
    return exit_status(table);
}

/// The table on a terminal, and what keys do to it.
class Top {
  public:
    Top(Wanted wanted, const Context& context)
        : wanted_(std::move(wanted)), screen_(context.out), readings_(context.root, table_) {}

    Result<int> run() {
        for (std::uint64_t told = 0; !sys::stop_requested() && !quit_;) {
            if (!paused_ && readings_.rest(wanted_.interval).count() == 0) {
                if (wanted_.count != 0 && told++ > wanted_.count)
                    break;
                NETCTL_TRY(readings_.read());
            }
            draw();
            if (gone_)
                break;
            // A terminal's size may change at any time.
            constexpr milliseconds look{200};
            for (int key =
                     screen_.key(paused_ ? look : std::min(look, readings_.rest(wanted_.interval)));
                 key != sys::Screen::no_key; key = screen_.key())
                on_key(key);
        }
        return exit_status(table_);
    }

  private:
    void draw() {
        table_.arrange(wanted_.order, wanted_.filter);
        const TerminalSize size = screen_.size();
        constexpr std::size_t around = 4; // the lines before and behind the table, and its heading
        if (size.rows <= around || size.columns < 20) {
            gone_ = !screen_.show({Text("the terminal is too small").first_columns(size.columns)});
            return;
        }
        const std::size_t rows = table_.rows().size();
        page_ = size.rows - around;
        marked_ = std::min(marked_, rows == 0 ? 0 : rows - 1);
        first_ = std::clamp(first_, marked_ < page_ ? 0 : marked_ - page_ + 1, marked_);
        std::vector<Text> lines{status_line().first_columns(size.columns)};
        for (Text& line : table_.render(size.columns, page_ + 1, first_, wanted_.order, marked_))
            lines.push_back(std::move(line));
        lines.resize(size.rows - 2);
        lines.push_back(
            rows == 0 ? Text() : top_row_text(table_.rows()[marked_]).first_columns(size.columns));
        lines.push_back(
            Text("q quit  s sort  / filter  space pause  arrows move").first_columns(size.columns));
        gone_ = !screen_.show(lines);
    }

    Text status_line() const {
        Text line = Text::format(
            "netctl top {}  every {} s  {} rows", sys::time_text(sys::wall_ns()).substr(11, 8),
            static_cast<double>(wanted_.interval.count()) / 1000, table_.rows().size());
        if (typing_ || !wanted_.filter.empty())
            line += Text::format("  filter: {}{}", wanted_.filter, typing_ ? "_" : "");
        if (paused_)
            line += Text::format("  paused");
        if (!table_.unread().empty())
            line += Text::format("  cannot be read: {}", table_.unread().front());
        return line;
    }

    void on_key(int key) {
        using sys::Screen;
        if (typing_ && key < Screen::up)
            return on_typed(key);
        switch (key) {
        case 'q': quit_ = true; break;
        case ' ':
        case 'p': paused_ = !paused_; break;
        case 's':
            wanted_.order = static_cast<TopOrder>((static_cast<std::size_t>(wanted_.order) + 1) %
                                                  std::size(top_orders));
            break;
        case '/':
            typing_ = true;
            wanted_.filter.clear();
            break;
        case Screen::escape: wanted_.filter.clear(); break;
        case Screen::up:
        case 'k': marked_ -= marked_ > 0 ? 1 : 0; break;
        case Screen::down:
        case 'j': marked_++; break;
        case Screen::page_up: marked_ -= std::min(marked_, page_); break;
        case Screen::page_down: marked_ += page_; break;
        default: break;
        }
    }

    void on_typed(int key) {
        using sys::Screen;
        constexpr int control_h = 8;
        if (key == Screen::enter || key == '\r') {
            typing_ = false;
        } else if (key == Screen::escape) {
            typing_ = false;
            wanted_.filter.clear();
        } else if (key == Screen::backspace || key == control_h) {
            if (!wanted_.filter.empty())
                wanted_.filter.pop_back();
        } else if (key >= ' ') {
            wanted_.filter += static_cast<char>(key);
        }
    }

    Wanted wanted_;
    TopTable table_;
    sys::Screen screen_;
    Readings readings_;
    std::size_t marked_ = 0, first_ = 0, page_ = 1;
    bool paused_ = false, typing_ = false, quit_ = false, gone_ = false;
};

Result<int> top(const Arguments& arguments, Context& context) {
    Wanted wanted;
    wanted.interval = milliseconds(1000 * NETCTL_TRY(arguments.number("interval", 2, 1, 3600)));
    wanted.count = NETCTL_TRY(arguments.number("count", 0, 1, 1'000'000'000));
    wanted.filter = arguments.get("filter");
    const std::string order = arguments.get("sort", top_orders[0]);
    wanted.order = static_cast<TopOrder>(std::ranges::find(top_orders, order) - top_orders);
    sys::catch_stop_signals();
    if (arguments.has("batch") || context.out.json() || !context.out.terminal())
        return stream(wanted, context);
    return Top(std::move(wanted), context).run();
}

} // namespace

Command top_command() {
    return {
        .name = "top",
        .summary =
            "show what all hooks count a second: rules, points, the policy, redirection, sets",
        .description = "On a terminal the table stays in place. Keys: q ends it; s sorts by the "
                       "next column; / "
                       "takes a filter, Escape takes it away; space stops the clock; arrows and "
                       "page keys move "
                       "the mark, and the line below the table tells all of the marked row. "
                       "Elsewhere, with --batch or --json, each interval has a table of its own.",
        .options = {{"interval", "SECONDS", "how often to read the counters (default: 2)", {}},
                    {"sort",
                     "rate|bytes|total|refused|place",
                     "what comes first (default: rate)",
                     {std::begin(top_orders), std::end(top_orders)}},
                    {"filter", "TEXT", "only rows whose hook, place or rule has this in it", {}},
                    {"count", "N", "end after so many intervals", {}},
                    {"batch", "", "tables one below the other, on a terminal, too", {}}},
        .run = top};
}

} // namespace netctl::host
