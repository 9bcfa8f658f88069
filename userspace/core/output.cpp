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
#include "core/log.hpp"

namespace netctl {

namespace {

/// errno of the first write to standard output that failed. A stream whose buffer did not reach its
/// disk forgets it, so a later write may well succeed: what was lost stays lost.
int write_error = 0;
/// The reader of a stream is gone: no failure, it has had enough.
bool stream_ended = false;

void write_out(std::string_view text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() && write_error == 0)
        write_error = errno != 0 ? errno : EIO;
}

bool flush_out() {
    errno = 0;
    if (std::fflush(stdout) != 0 && write_error == 0)
        write_error = errno != 0 ? errno : EIO;
    return write_error == 0;
}

std::string dump(const Json& value, int indent) {
    return json_shown(value.dump(indent, ' ', false, Json::error_handler_t::replace));
}

} // namespace

void Output::document(const Json& value, const Text& text) const {
    write_out(json_ ? dump(value, 2) + "\n" : text.string());
}

bool Output::line(const Json& value, const Text& text) const {
    write_out((json_ ? dump(value, -1) : text.string()) + "\n");
    if (flush_out())
        return true;
    stream_ended = write_error == EPIPE;
    return false;
}

Output::Written Output::stream(const Text& text) const {
    const std::string_view lines = text.string();
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
    if (written.error == EPIPE)
        stream_ended = true;
    else if (write_error == 0)
        write_error = written.error;
    return written;
}

std::optional<TerminalSize> Output::terminal() const {
    winsize size{};
    if (isatty(STDOUT_FILENO) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        return std::nullopt;
    // A terminal over a serial line does not know its size.
    return size.ws_col ? TerminalSize{size.ws_col, size.ws_row} : TerminalSize{80, 24};
}

void Output::done(const Text& text) const {
    if (!json_ && !quiet_)
        write_out(text.string() + "\n");
}

void Output::note(const Text& text) const {
    if (!quiet_)
        fmt::print(stderr, "{}: {}\n", message_prefix(), text);
}

void Output::notes(const std::vector<std::string>& texts) const {
    for (const std::string& text : texts)
        note(text);
}

void print_error(const Error& error) {
    flush_out();
    fmt::print(stderr, "{}: {}\n", message_prefix(), error.what);
    if (!error.hint.empty())
        fmt::print(stderr, "hint: {}\n", error.hint);
}

void print_text(const Text& text) {
    write_out(text.string());
}

Result<> finish_output() {
    if (flush_out() || stream_ended)
        return {};
    return Error::system(write_error, "cannot write to standard output");
}

Text TextTable::render(const Text& indent) const {
    std::vector<std::size_t> widths;
    for (const Column& column : columns_)
        widths.push_back(columns(column.title.string()));
    for (const auto& row : rows_)
        for (std::size_t i = 0; i < row.size() && i < widths.size(); i++)
            widths[i] = std::max(widths[i], columns(row[i].string()));

    std::string text;
    const auto line = [&](const auto& cell) {
        std::string result = indent.string();
        for (std::size_t i = 0; i < columns_.size(); i++) {
            if (i > 0)
                result += "  ";
            const std::string& written = cell(i).string();
            const std::string padding(widths[i] - columns(written), ' ');
            result += columns_[i].right ? padding + written : written + padding;
        }
        result.erase(result.find_last_not_of(' ') + 1);
        text += result + "\n";
    };
    const Text none;
    line([&](std::size_t i) -> const Text& { return columns_[i].title; });
    for (const auto& row : rows_)
        line([&](std::size_t i) -> const Text& { return i < row.size() ? row[i] : none; });
    return Text::trusted(std::move(text));
}

} // namespace netctl
