// SPDX-License-Identifier: GPL-2.0-only
#include "sys/input_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include "core/fd.hpp"

namespace netctl::sys {

namespace {

class Input {
  public:
    Input(Fd fd, std::string& trouble) : fd_(std::move(fd)), trouble_(&trouble) {}
    Input(const Input&) = delete;
    Input& operator=(const Input&) = delete;
    ~Input() {
        if (kind_ == Kind::gzip)
            inflateEnd(&zlib_);
        ZSTD_freeDStream(zstd_);
    }

    /// As read(2): -1 and `trouble` for what went wrong.
    ssize_t read(char* buffer, std::size_t size) {
        if (kind_ == Kind::unknown && !find_kind())
            return -1;
        switch (kind_) {
        case Kind::gzip: return inflate_some(buffer, size);
        case Kind::zstd: return decompress_some(buffer, size);
        default: break;
        }
        if (rest_.empty() && !fill())
            return -1;
        const std::size_t some = std::min(size, rest_.size());
        std::memcpy(buffer, rest_.data(), some);
        rest_.remove_prefix(some);
        return static_cast<ssize_t>(some);
    }

  private:
    enum class Kind { unknown, plain, gzip, zstd };

    ssize_t fail(std::string what) {
        *trouble_ = std::move(what);
        errno = EIO;
        return -1;
    }

    /// More of the file behind what is left of it; nothing more at its end.
    bool fill() {
        std::memmove(buffer_.data(), rest_.data(), rest_.size());
        ssize_t size = 0;
        do
            size = ::read(fd_.get(), buffer_.data() + rest_.size(), buffer_.size() - rest_.size());
        while (size < 0 && errno == EINTR);
        if (size < 0) {
            fail(std::strerror(errno));
            return false;
        }
        ended_ = size == 0;
        rest_ = {buffer_.data(), rest_.size() + static_cast<std::size_t>(size)};
        return true;
    }

    bool find_kind() {
        while (rest_.size() < 4 && !ended_)
            if (!fill())
                return false;
        kind_ = Kind::plain;
        if (rest_.starts_with("\x1f\x8b")) {
            // 16 more than the size of the window: gzip and nothing else.
            if (inflateInit2(&zlib_, MAX_WBITS + 16) != Z_OK)
                return fail("no memory") == 0;
            kind_ = Kind::gzip;
        } else if (rest_.starts_with("\x28\xb5\x2f\xfd")) {
            kind_ = Kind::zstd;
            zstd_ = ZSTD_createDStream();
            if (!zstd_)
                return fail("no memory") == 0;
        }
        return true;
    }

    ssize_t inflate_some(char* buffer, std::size_t size) {
        zlib_.next_out = reinterpret_cast<Bytef*>(buffer);
        zlib_.avail_out = static_cast<uInt>(size);
        while (zlib_.avail_out == size) {
            if (rest_.empty() && !ended_ && !fill())
                return -1;
            if (rest_.empty())
                return between_ ? 0 : fail("its gzip data end too early");
            zlib_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(rest_.data()));
            zlib_.avail_in = static_cast<uInt>(rest_.size());
            const int status = inflate(&zlib_, Z_NO_FLUSH);
            rest_.remove_prefix(rest_.size() - zlib_.avail_in);
            between_ = status == Z_STREAM_END;
            if (between_)
                inflateReset(&zlib_); // another file may follow and is a part of this one
            else if (status != Z_OK)
                return fail("its gzip data are damaged");
        }
        return static_cast<ssize_t>(size - zlib_.avail_out);
    }

    ssize_t decompress_some(char* buffer, std::size_t size) {
        ZSTD_outBuffer out{buffer, size, 0};
        while (out.pos == 0) {
            if (rest_.empty() && !ended_ && !fill())
                return -1;
            if (rest_.empty() && between_)
                return 0;
            ZSTD_inBuffer in{rest_.data(), rest_.size(), 0};
            const std::size_t status = ZSTD_decompressStream(zstd_, &out, &in);
            if (ZSTD_isError(status))
                return fail(
                    fmt::format("its zstd data are damaged: {}", ZSTD_getErrorName(status)));
            between_ = status == 0;
            if (rest_.empty() && out.pos == 0 && !between_)
                return fail("its zstd data end too early");
            rest_.remove_prefix(in.pos);
        }
        return static_cast<ssize_t>(out.pos);
    }

    Fd fd_;
    std::string* trouble_;
    std::array<char, 128 * 1024> buffer_;
    std::string_view rest_{buffer_.data(), 0}; ///< what was read of the file and not used yet
    bool ended_ = false;
    bool between_ = false; ///< two compressed files, or at the end
    Kind kind_ = Kind::unknown;
    z_stream zlib_{};
    ZSTD_DStream* zstd_ = nullptr;
};

ssize_t read_input(void* input, char* buffer, std::size_t size) {
    return static_cast<Input*>(input)->read(buffer, size);
}

int close_input(void* input) {
    delete static_cast<Input*>(input);
    return 0;
}

} // namespace

Result<std::FILE*> open_input(const std::string& path, std::string& trouble) {
    Fd fd(path == "-" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                      : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return Error::system(errno, fmt::format("cannot read {}", path));
    auto input = std::make_unique<Input>(std::move(fd), trouble);
    cookie_io_functions_t functions{};
    functions.read = read_input;
    functions.close = close_input;
    std::FILE* stream = fopencookie(input.get(), "r", functions);
    if (!stream)
        return Error::system(errno, fmt::format("cannot read {}", path));
    static_cast<void>(input.release()); // close_input() has it now
    return stream;
}

} // namespace netctl::sys
