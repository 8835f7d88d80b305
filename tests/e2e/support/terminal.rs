//! A command on a pseudo-terminal, as Python drives it.

/// Python's class `Terminal`: the command of the script's arguments on a pseudo-terminal.
const TERMINAL: &str = r#"
import os, pty, select, sys, time

class Terminal:
    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(sys.argv[1], sys.argv[1:])
        self.seen = b""

    def until(self, needle):
        """Waits for a text; False if the command ended before it came."""
        end = time.monotonic() + 60
        while needle not in self.seen:
            if time.monotonic() > end:
                sys.exit("waited for %r in %r" % (needle, self.seen))
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    more = os.read(self.fd, 4096)
                except OSError:
                    more = b""
                if not more:
                    return False
                self.seen += more
        return True

    def exit_code(self):
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)
"#;

/// Returns a script that has the class before its own lines.
pub(crate) fn on_a_terminal(script: &str) -> String {
    format!("{TERMINAL}{script}")
}
