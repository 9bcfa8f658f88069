// SPDX-License-Identifier: GPL-2.0-only
//
// Result<T>: a value or an Error, shaped like std::expected, which gcc 12 does not have.
#pragma once

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "core/text.hpp"

namespace netctl {

/// What an error means for the caller; the command's exit status is derived from it.
enum class ErrorKind {
    failed,      ///< exit 1: the operation failed
    usage,       ///< exit 2: the caller asked for something that cannot be
    unsupported, ///< exit 3: this kernel or device cannot do it
    unknown,     ///< exit 4: a question that could not be answered
};

/// What the positive errno `code` means. Attaching answers 524, ENOTSUPP, where the kernel cannot; it means to
/// keep that number to itself, and the C library has no text for it.
inline const char* error_text(int code) {
    return code == 524 ? "not supported" : std::strerror(code);
}

/// What failed, on which object, why, and what the user can do about it.
struct Error {
    ErrorKind kind = ErrorKind::failed;
    int code = 0; ///< errno at birth; 0 if no system call failed
    Text what;    ///< "cannot open /sys/fs/bpf/netctl: Permission denied"
    Text hint;    ///< "run as root"; may be empty

    /// An error without errno.
    static Error failed(Text what, Text hint = {}) {
        return {ErrorKind::failed, 0, std::move(what), std::move(hint)};
    }
    static Error usage(Text what, Text hint = {}) {
        return {ErrorKind::usage, 0, std::move(what), std::move(hint)};
    }
    static Error unsupported(Text what, Text hint = {}) {
        return {ErrorKind::unsupported, 0, std::move(what), std::move(hint)};
    }
    static Error unknown(Text what, Text hint = {}) {
        return {ErrorKind::unknown, 0, std::move(what), std::move(hint)};
    }
    /// An error of a system call; `code` is a positive errno, `what` gets its text appended.
    static Error system(int code, Text what, Text hint = {}) {
        what = Text::format("{}: {}", what, error_text(code));
        return {ErrorKind::failed, code, std::move(what), std::move(hint)};
    }
    /// The same error with what the caller was doing in front.
    Error within(const Text& context) && {
        what = Text::format("{}: {}", context, what);
        return std::move(*this);
    }
    /// The same as the answer to a question: what failed says neither yes nor no (I13).
    Error could_not_tell() && {
        if (kind == ErrorKind::failed)
            kind = ErrorKind::unknown;
        return std::move(*this);
    }
};

struct Ok {};

/// What is true or false, or there or not, besides having come about at all.
template <class T> inline constexpr bool answers_by_itself = std::is_same_v<T, bool>;
template <class T> inline constexpr bool answers_by_itself<std::optional<T>> = true;

template <class T = Ok> class [[nodiscard]] Result {
  public:
    Result() requires std::is_same_v<T, Ok> : state_(Ok{}) {}
    Result(T value) : state_(std::move(value)) {}
    Result(Error error) : state_(std::move(error)) {}

    /// Not of what answers a question itself: `if (exists())` would ask whether it could be told, and take
    /// a no for a yes. Say has_value(), or NETCTL_TRY().
    explicit operator bool() const requires(!answers_by_itself<T>) { return state_.index() == 0; }
    bool has_value() const { return state_.index() == 0; }

    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    Error& error() & { return std::get<1>(state_); }
    const Error& error() const& { return std::get<1>(state_); }
    Error&& error() && { return std::get<1>(std::move(state_)); }

    T value_or(T other) && { return has_value() ? std::move(*this).value() : std::move(other); }

  private:
    std::variant<T, Error> state_;
};

} // namespace netctl

/// Unwraps a Result, or returns its error from the enclosing function:
/// `Fd fd = NETCTL_TRY(open_pin(path));`
#define NETCTL_TRY(expression)                                                                     \
    __extension__({                                                                                \
        auto netctl_try_result = (expression);                                                     \
        if (!netctl_try_result.has_value())                                                        \
            return std::move(netctl_try_result).error();                                           \
        std::move(netctl_try_result).value();                                                      \
    })
