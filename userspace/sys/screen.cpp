// SPDX-License-Identifier: GPL-2.0-only
#include "sys/screen.hpp"

#include <algorithm>
#include <array>
#include <poll.h>
#include <string_view>
#include <unistd.h>
#include <utility>

namespace netctl::sys {

namespace {

/// As terminals since the VT100 send them (ECMA-48; xterm's control sequences), with and without application mode.
constexpr std::array<std::pair<std::string_view, int>, 6> sequences{
    {{"\x1b[A", Screen::up},
     {"\x1bOA", Screen::up},
     {"\x1b[B", Screen::down},
     {"\x1bOB", Screen::down},
     {"\x1b[5~", Screen::page_up},
     {"\x1b[6~", Screen::page_down}}};

/// How long a sequence at the beginning of `text` is.
std::size_t sequence_length(std::string_view text) {
    std::size_t at = 2;
    if (text[1] == '[')
        while (at < text.size() && (text[at] < '@' || text[at] > '~'))
            at++;
    return std::min(at + 1, text.size());
}

} // namespace

Screen::Screen(const Output& out) : out_(&out) {
    out_->stream(Text::format("\x1b[?1049h\x1b[?25l"));
    if (tcgetattr(STDIN_FILENO, &old_) == 0) {
        termios raw = old_;
        raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        keys_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
}

Screen::~Screen() {
    if (keys_)
        tcsetattr(STDIN_FILENO, TCSANOW, &old_);
    out_->stream(Text::format("\x1b[?25h\x1b[?1049l"));
}

int Screen::key(std::chrono::milliseconds wait) {
    if (typed_.empty()) {
        pollfd input{STDIN_FILENO, POLLIN, 0};
        const int ready = ::poll(&input, keys_ && !ended_ ? 1 : 0, static_cast<int>(wait.count()));
        std::array<char, 64> buffer{};
        const ssize_t got = ready > 0 ? read(STDIN_FILENO, buffer.data(), buffer.size()) : 0;
        if (got <= 0) {
            ended_ = ended_ || ready > 0;
            return no_key;
        }
        typed_.assign(buffer.data(), static_cast<std::size_t>(got));
    }
    std::size_t length = 1;
    int pressed = static_cast<unsigned char>(typed_[0]);
    if (pressed == escape && typed_.size() > 2 && (typed_[1] == '[' || typed_[1] == 'O')) {
        length = sequence_length(typed_);
        pressed = other;
        for (const auto& [sequence, meaning] : sequences)
            if (typed_.substr(0, length) == sequence)
                pressed = meaning;
    }
    typed_.erase(0, length);
    return pressed;
}

TerminalSize Screen::size() const {
    return out_->terminal().value_or(TerminalSize{80, 24});
}

bool Screen::show(const std::vector<Text>& lines) const {
    Text screen = Text::format("\x1b[H");
    for (const Text& line : lines) {
        if (&line != &lines.front())
            screen += Text::format("\x1b[K\r\n");
        screen += line;
    }
    return out_->stream(screen + Text::format("\x1b[K\x1b[J")).error == 0;
}

} // namespace netctl::sys
