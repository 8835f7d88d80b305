//! A real ssh-agent with a key, which ends with the case.

use super::World;

/// An agent that runs.
pub(crate) struct Agent<'w> {
    world: &'w World,
    pid: String,
    socket: String,
}

impl<'w> Agent<'w> {
    /// Starts one that holds the key in a file.
    pub(crate) fn start(world: &'w World, key: &str) -> Agent<'w> {
        let socket = world.path("agent.sock").display().to_string();
        let told = world.program("ssh-agent", &["-a", &socket]).ok().stdout;
        let pid = told.split("SSH_AGENT_PID=").nth(1).unwrap();
        let pid = pid.split(';').next().unwrap().to_owned();
        let agent = Agent { world, pid, socket };
        let adding = world.program("ssh-add", &["-q", key]);
        adding.env("SSH_AUTH_SOCK", &agent.socket).ok();
        agent
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let ending = self.world.program("ssh-agent", &["-k"]);
        ending.env("SSH_AGENT_PID", &self.pid).ok();
    }
}
