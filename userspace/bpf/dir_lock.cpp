// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/dir_lock.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

namespace netctl::bpf {

namespace {

volatile std::sig_atomic_t ticked = 0;

/// Interrupts what this thread waits for in the kernel, four times a second, while it lives: flock() knows
/// no end of its own. Asking again and again instead would never be served before somebody who waits.
class Ticker {
  public:
    Ticker() {
        struct sigaction action {};
        action.sa_handler = [](int) { ticked = 1; };
        sigaction(SIGALRM, &action, &old_); // without SA_RESTART
        sigset_t own;
        sigemptyset(&own);
        sigaddset(&own, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &own, &mask_); // whoever started us may have blocked it
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGALRM;
        event._sigev_un._tid = gettid();
        running_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
        const itimerspec each{{0, 250'000'000}, {0, 250'000'000}};
        running_ = running_ && timer_settime(timer_, 0, &each, nullptr) == 0;
    }
    Ticker(const Ticker&) = delete;
    Ticker& operator=(const Ticker&) = delete;
    ~Ticker() {
        if (running_)
            timer_delete(timer_);
        pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
        sigaction(SIGALRM, &old_, nullptr);
    }
    bool running() const { return running_; }

  private:
    struct sigaction old_ {};
    sigset_t mask_{};
    timer_t timer_{};
    bool running_ = false;
};

Error cannot_lock(int code, const PinDir& directory) {
    return Error::system(code, fmt::format("cannot lock {}", directory.path()));
}

Result<> wait_for(int fd, int operation, const PinDir& directory, const LockWait& wait) {
    using std::chrono::steady_clock;
    const Ticker ticker;
    if (!ticker.running())
        return Error::system(errno, "cannot make a timer");
    const auto slow_at = steady_clock::now() + std::chrono::seconds(1);
    bool told = false;
    for (;;) {
        if (flock(fd, operation) == 0)
            return {};
        if (errno != EINTR || ticked == 0)
            return cannot_lock(errno, directory);
        ticked = 0;
        if (steady_clock::now() >= wait.end)
            return cannot_lock(ETIMEDOUT, directory);
        if (!told && steady_clock::now() >= slow_at) {
            told = true;
            if (wait.slow)
                wait.slow();
        }
    }
}

} // namespace

Result<DirLock> DirLock::acquire(const PinDir& directory, LockMode mode, const LockWait& wait) {
    Fd fd = NETCTL_TRY(directory.open_directory());
    const int operation = mode == LockMode::shared ? LOCK_SH : LOCK_EX;
    if (flock(fd.get(), operation | LOCK_NB) == 0)
        return DirLock(std::move(fd));
    if (errno != EWOULDBLOCK)
        return cannot_lock(errno, directory);
    NETCTL_TRY(wait_for(fd.get(), operation, directory, wait));
    return DirLock(std::move(fd));
}

Result<DirLock> DirLock::try_acquire(const PinDir& directory) {
    Fd fd = NETCTL_TRY(directory.open_directory());
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return cannot_lock(errno, directory);
    // A second lock, of a kind that can be asked for without being taken. It keeps nobody out.
    struct flock mark {};
    mark.l_type = F_RDLCK;
    if (fcntl(fd.get(), F_OFD_SETLK, &mark) != 0)
        return cannot_lock(errno, directory);
    return DirLock(std::move(fd));
}

bool DirLock::is_held(const PinDir& directory) {
    const auto fd = directory.open_directory();
    struct flock mark {};
    mark.l_type = F_WRLCK;
    return fd && fcntl(fd->get(), F_OFD_GETLK, &mark) == 0 && mark.l_type != F_UNLCK;
}

bool DirLock::still_at(const PinDir& directory) const {
    struct stat locked {};
    struct stat present {};
    const auto fd = directory.open_directory();
    return fd && fstat(fd_.get(), &locked) == 0 && fstat(fd->get(), &present) == 0 &&
           locked.st_dev == present.st_dev && locked.st_ino == present.st_ino;
}

std::vector<LockHolder> lock_holders(const PinDir& directory) {
    std::vector<LockHolder> holders;
    const auto fd = directory.open_directory();
    struct stat info {};
    if (!fd || fstat(fd->get(), &info) != 0)
        return holders;
    // "7: FLOCK  ADVISORY  WRITE 4711 00:1d:23 0 EOF"; who waits has "->" behind the number.
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        int pid = 0;
        unsigned major_number = 0, minor_number = 0;
        unsigned long long inode = 0;
        if (std::sscanf(line.c_str(), "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &major_number,
                        &minor_number, &inode) != 4 ||
            makedev(major_number, minor_number) != info.st_dev || inode != info.st_ino)
            continue;
        std::ifstream comm(fmt::format("/proc/{}/comm", pid));
        std::string name{std::istreambuf_iterator<char>(comm), {}};
        if (!name.empty())
            name.pop_back(); // the line feed behind it; there may be some in it
        holders.push_back({pid, name});
    }
    return holders;
}

} // namespace netctl::bpf
