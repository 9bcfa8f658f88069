// SPDX-License-Identifier: GPL-2.0-only
//
// Commit, then tidy (invariants I2 and I13). Before the commit point an error takes back what was done, and
// is the command's error. Behind it the new state is in force, so there are no errors any more, only notes:
//
//     Transaction transaction(report.notes);
//     transaction.or_else("the pin of the link", [&] { return dir.unpin("link"); });
//     NETCTL_TRY(link.pin(...));                      // fails: all is taken back
//     NETCTL_TRY(link.update(program));               // the commit: one step
//     return std::move(transaction).commit([&](Aftermath& after) {
//         after.tidy("the pins beside the link", publish_pins(dir, program));
//         return report;                              // no Result: nothing fails here
//     });
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/log.hpp"
#include "core/result.hpp"

namespace netctl {

/// What may be done behind the commit point.
class Aftermath {
  public:
    explicit Aftermath(std::vector<std::string>& notes) : notes_(notes) {}

    /// Takes the outcome of a step whose failure leaves the new state in force; `what` is what the user
    /// finds undone then.
    void tidy(const std::string& what, Result<> outcome) {
        if (!outcome)
            notes_.push_back(
                fmt::format("done, but {} could not be tidied up: {}", what, outcome.error().what));
    }
    /// The value of a step whose failure does not matter more than that; `otherwise` then.
    template <class T> T value(const std::string& what, Result<T> outcome, T otherwise) {
        if (outcome)
            return std::move(outcome).value();
        tidy(what, std::move(outcome).error());
        return otherwise;
    }
    void note(std::string text) { notes_.push_back(std::move(text)); }

  private:
    std::vector<std::string>& notes_;
};

template <class T> inline constexpr bool is_result = false;
template <class T> inline constexpr bool is_result<Result<T>> = true;

/// What an undo refers to has to be declared before the transaction, so that it outlives it.
class Transaction {
  public:
    using Undo = std::function<Result<>()>;

    /// `notes` gets what becomes of the steps behind the commit point.
    explicit Transaction(std::vector<std::string>& notes) : notes_(&notes) {}
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() { roll_back(); }

    /// Has `undo` take back, unless the commit comes, what is done next; the last goes first.
    void or_else(std::string what, Undo undo) {
        undos_.emplace_back(std::move(what), std::move(undo));
    }

    /// The commit point is passed. `behind(Aftermath&)` returns what the command reports.
    template <class Behind> auto commit(Behind behind) && {
        using Report = std::invoke_result_t<Behind, Aftermath&>;
        static_assert(!is_result<Report>, "nothing fails behind the commit point");
        undos_.clear();
        Aftermath after(*notes_);
        return behind(after);
    }

  private:
    void roll_back() {
        for (; !undos_.empty(); undos_.pop_back()) {
            auto& [what, undo] = undos_.back();
            if (const auto outcome = undo(); !outcome)
                warn(Text::format("{} could not be taken back: {}", what, outcome.error().what));
        }
    }

    std::vector<std::string>* notes_;
    std::vector<std::pair<std::string, Undo>> undos_;
};

} // namespace netctl
