"""From what the shim says to what a person can do about it."""

from __future__ import annotations

_MENDS = (
    ("clone namespaces",
     "This user may not make namespaces; run the agent as root, or allow it: `sysctl -w user.max_user_namespaces=100000`, "
     "on Debian `kernel.unprivileged_userns_clone=1`, on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0`."),
    ("write /proc/", "This user may not map users; on Ubuntu: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`."),
    ("protect ", "The sandbox needs Linux 5.12 or newer to make mounts read-only; use a container engine here."),
    ("mount /proc", "A fresh /proc may not be mounted here, as in most containers; run the agent outside of one, or in a privileged one."),
    ("mount private", "Mounts are not allowed here, as in most containers; run the agent outside of one, or in a privileged one."),
    ("seccomp filter", "The kernel refuses system call filters; use a kernel with CONFIG_SECCOMP_FILTER."),
    ("join container", "The container has ended."),
    ("join network", "What held the network of this session was killed; ask for the session anew."),
    ("connect network", "The container could not be connected with the others of its session; ask your administrator to look at the node."),
    ("slirp4netns ", "slirp4netns did not start; what it said is in the file of that name beside the plan. Ask for a private network."),
)


def mend(said: str) -> str:
    """Return a sentence for the user about *said*, a line of the shim: what failed, on what, and the system's word for it."""
    said = said or "shim: it said nothing"
    step, _, why = said.partition(": ")
    if step.startswith("exec "):
        return f"{step[5:]} cannot be run: {why}. Look at the command and at the image."
    if step.startswith("chdir "):
        return f"The folder {step[6:]} cannot be used to work in: {why}."
    for start, text in _MENDS:
        if step.startswith(start):
            return f"{text} ({said})"
    return f"The sandbox could not be set up: {said}."
