// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/line_writer.hpp"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

namespace netctl::trace {

bool LineWriter::write() {
    if (pending_.empty())
        return true;
    const std::size_t prefix = torn_ ? 1 : 0;
    if (torn_)
        pending_ = Text::format("\n") + pending_;
    const std::string& pending = pending_.string();
    const Output::Written written = out_->stream(pending_);
    if (written.bytes > 0)
        torn_ = pending[written.bytes - 1] != '\n';
    if (written.error != 0 && written.error != EPIPE) {
        std::size_t rest = std::max(written.bytes, prefix);
        // Of a line that lacks its end alone, nothing is lost: the next attempt begins with it.
        if (written.bytes > prefix && pending[rest] == '\n')
            ++rest;
        unwritten_ += static_cast<std::uint64_t>(
            std::count(pending.begin() + static_cast<std::ptrdiff_t>(rest), pending.end(), '\n'));
        if (!std::exchange(failed_, true))
            out_->note(Error::system(written.error, "cannot write to standard output").what +
                       "; tracing goes on");
    }
    pending_.clear();
    return written.error != EPIPE;
}

void LineWriter::add_end(const Json& members) {
    Json end{{"event", "end"}};
    end.update(members);
    end["not_written"] = unwritten_;
    pending_ += Text::format("{}\n", end.dump());
}

} // namespace netctl::trace
