// SPDX-License-Identifier: GPL-2.0-only
#include "core/output.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/json.hpp"

namespace netctl {

namespace {

/// Text from packets and programs may hold bytes that are no UTF-8: they must not end the output.
std::string dump(const Json& value, int indent) {
    return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

} // namespace

void Output::document(const Json& value, const std::string& text) const {
    print_text(json_ ? dump(value, 2) + "\n" : text);
}

bool Output::line(const Json& value, const std::string& text) const {
    print_text((json_ ? dump(value, -1) : text) + "\n");
    return std::fflush(stdout) == 0;
}

Output::Written Output::stream(const std::string& lines) const {
    // Not through stdio, which does not say how much of its buffer a full disk took.
    Written written;
    if (std::fflush(stdout) != 0)
        written.error = errno;
    while (written.bytes < lines.size() && written.error == 0) {
        const ssize_t size =
            write(STDOUT_FILENO, lines.data() + written.bytes, lines.size() - written.bytes);
        if (size >= 0) {
            written.bytes += static_cast<std::size_t>(size);
        } else if (errno == EAGAIN) { // somebody else made the terminal or pipe non-blocking
            pollfd out{STDOUT_FILENO, POLLOUT, 0};
            poll(&out, 1, -1);
        } else if (errno != EINTR) {
            written.error = errno;
        }
    }
    return written;
}

std::optional<TerminalSize> Output::terminal() const {
    winsize size{};
    if (isatty(STDOUT_FILENO) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        return std::nullopt;
    // A terminal over a serial line does not know its size.
    return size.ws_col ? TerminalSize{size.ws_col, size.ws_row} : TerminalSize{80, 24};
}

void Output::done(const std::string& text) const {
    if (!json_ && !quiet_)
        print_text(text + "\n");
}

void Output::note(const std::string& text) const {
    if (!quiet_)
        fmt::print(stderr, "netctl: {}\n", text);
}

void Output::notes(const std::vector<std::string>& texts) const {
    for (const std::string& text : texts)
        note(text);
}

void print_error(const Error& error) {
    std::fflush(stdout);
    fmt::print(stderr, "netctl: {}\n", error.what);
    if (!error.hint.empty())
        fmt::print(stderr, "hint: {}\n", error.hint);
}

void print_text(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string TextTable::render(const std::string& indent) const {
    std::vector<std::size_t> widths;
    for (const Column& column : columns_)
        widths.push_back(column.title.size());
    for (const auto& row : rows_)
        for (std::size_t i = 0; i < row.size() && i < widths.size(); i++)
            widths[i] = std::max(widths[i], row[i].size());

    std::string text;
    const auto line = [&](const auto& cell) {
        std::string result = indent;
        for (std::size_t i = 0; i < columns_.size(); i++) {
            if (i > 0)
                result += "  ";
            result += columns_[i].right ? fmt::format("{:>{}}", cell(i), widths[i])
                                        : fmt::format("{:<{}}", cell(i), widths[i]);
        }
        result.erase(result.find_last_not_of(' ') + 1);
        text += result + "\n";
    };
    line([&](std::size_t i) { return columns_[i].title; });
    for (const auto& row : rows_)
        line([&](std::size_t i) { return i < row.size() ? row[i] : std::string(); });
    return text;
}

} // namespace netctl
