// SPDX-License-Identifier: GPL-2.0-only
//
// A terminal as a whole screen: lines are drawn in place, keys come one by one.
#pragma once

#include <chrono>
#include <string>
#include <termios.h>
#include <vector>

#include "core/output.hpp"

namespace netctl::sys {

/// The alternate screen of standard output, and keys of standard input if that is a terminal, too. What was there
/// before is back when it is destroyed.
class Screen {
  public:
    /// Beside characters.
    enum Key : int {
        no_key = 0,
        enter = '\n',
        backspace = 127,
        escape = 27,
        up = 256,
        down,
        page_up,
        page_down,
        other, ///< a sequence that means nothing here
    };

    explicit Screen(const Output& out);
    Screen(const Screen&) = delete;
    Screen& operator=(const Screen&) = delete;
    ~Screen();

    /// A key that was pressed, as a byte or one of the above; no_key if none was within `wait`, or a signal came.
    int key(std::chrono::milliseconds wait = {});
    /// What lines have room for; 80 by 24 if the terminal does not say.
    TerminalSize size() const;
    /// False if the terminal is gone.
    bool show(const std::vector<Text>& lines) const;

  private:
    const Output* out_;
    termios old_{};
    bool keys_ = false;
    bool ended_ = false; ///< no key will come any more
    std::string typed_;  ///< what was read and is not handed out yet
};

} // namespace netctl::sys
