//! Images that nobody wants any more while they are on their way into an engine.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Capability::*;
use crate::support::{
    APART, Case, Containerd as ContainerdProcess, Dockerd as DockerdProcess, Kiln, World, case,
    find_program, podman_settings,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "docker_interrupted",
            &[Containers, Root, Dockerd],
            |world| {
                docker(world, Signal::SIGINT);
            },
        ),
        case("docker_killed", &[Containers, Root, Dockerd], |world| {
            docker(world, Signal::SIGKILL);
        }),
        case(
            "podman_interrupted",
            &[Containers, MountNamespace, Podman],
            |world| {
                podman(world, Signal::SIGINT);
            },
        ),
        case(
            "podman_killed",
            &[Containers, MountNamespace, Podman],
            |world| {
                podman(world, Signal::SIGKILL);
            },
        ),
        case(
            "containerd_interrupted",
            &[Containers, Root, Containerd],
            |world| {
                containerd(world, Signal::SIGINT);
            },
        ),
        case(
            "containerd_killed",
            &[Containers, Root, Containerd],
            |world| {
                containerd(world, Signal::SIGKILL);
            },
        ),
    ]
}

/// So much of an archive goes through before the line stands still; less than there is.
const PASSED_BYTES: usize = 2 << 20;

/// An image with a layer that no line holds as a whole.
fn sources(world: &World) {
    world.base();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(16 << 20)
    .collect();
    world.write("ctx/big", noise);
    world.dockerfile("FROM demo/base\nCOPY big /big\n");
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never came to it: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the signal once the file is there, and waits for the end.
fn give_up(kiln: Kiln<'_>, begun: &Path, signal: Signal) {
    let running = kiln.spawn();
    wait_until("the image is on its way", || begun.exists());
    running.signal(signal);
    let ran = running.wait();
    match signal {
        Signal::SIGKILL => assert!(!ran.status.success()),
        _ => assert_eq!(ran.status.code(), Some(130), "{}", ran.whole()),
    }
}

/// Passes everything on to an engine; of what is sent to be loaded, only the beginning.
fn stall(at: &Path, engine: PathBuf, begun: PathBuf) {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { break };
            let (engine, begun) = (engine.clone(), begun.clone());
            std::thread::spawn(move || pass(stream, &engine, &begun));
        }
    });
}

fn pass(mut stream: UnixStream, engine: &Path, begun: &Path) {
    let mut there = UnixStream::connect(engine).unwrap();
    let (mut back, mut to) = (there.try_clone().unwrap(), stream.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let mut passed = 0;
    let mut piece = vec![0; 64 << 10];
    loop {
        if passed > PASSED_BYTES {
            std::fs::write(begun, "").unwrap();
            // It reads no more. Whoever sent it is gone when this can be polled as closed.
            let mut fds = [nix::poll::PollFd::new(
                stream.as_fd(),
                nix::poll::PollFlags::empty(),
            )];
            while nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).is_err() {}
            break;
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => {
                passed += count;
                if there.write_all(&piece[..count]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    let _ = there.shutdown(std::net::Shutdown::Both);
}

fn docker(world: &World, signal: Signal) {
    sources(world);
    let docker = DockerdProcess::start(&world.path("d"));
    let (socket, begun) = (world.path("docker.sock"), world.path("begun"));
    stall(&socket, world.path("d/docker.sock"), begun.clone());
    let kiln = world
        .kiln(&["build", "-t", "app", "--load=docker", "ctx"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()));
    give_up(kiln, &begun, signal);
    let images = docker.json("/images/json?all=1");
    assert_eq!(images.as_array().unwrap().len(), 0, "{images}");
    // And it can be sent again.
    world
        .kiln(&["build", "-t", "app", "--load=docker", "ctx"])
        .env("DOCKER_HOST", docker.host())
        .ok();
    docker.json("/images/app/json");
}

/// A program in front of an engine's own command, which passes on only the beginning of an image, until it is let.
struct Front<'w> {
    world: &'w World,
    reads: &'static str,
    path: String,
}

impl<'w> Front<'w> {
    fn new(world: &'w World, name: &str, reads: &'static str) -> Front<'w> {
        let path = |name: &str| world.path(name).display().to_string();
        let real = find_program(name).unwrap().display().to_string();
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' {reads} '*) ;; *) exec {real} \"$@\";; esac\n\
             {{ head -c {PASSED_BYTES}; : > {}; while test ! -e {}; do sleep 0.01; done; cat; }} | {real} \"$@\"\n",
            path("begun"),
            path("go"),
        );
        world.write_program(&format!("bin/{name}"), &script);
        Front {
            world,
            reads,
            path: format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", path("bin")),
        }
    }

    fn give_up(&self, kiln: Kiln<'_>, signal: Signal) {
        let kiln = kiln.env("PATH", &self.path);
        give_up(kiln, &self.world.path("begun"), signal);
        // Who was interrupted has seen to all of them; who was killed has left them an archive that ends too soon.
        if signal == Signal::SIGKILL {
            self.world.write("go", "");
        }
        wait_until("the commands are gone", || {
            let left = self.world.leftovers();
            !left.iter().any(|line| line.contains(self.reads))
        });
    }
}

fn podman(world: &World, signal: Signal) {
    sources(world);
    let settings = podman_settings(&world.path("p"));
    let build = || {
        let line = [
            env!("CARGO_BIN_EXE_kiln"),
            "build",
            "-t",
            "app",
            "--load=podman",
            "ctx",
        ];
        world
            .program("unshare", &[&APART[..], &line].concat())
            .env("CONTAINERS_STORAGE_CONF", &settings)
    };
    Front::new(world, "podman", "load").give_up(build(), signal);
    let images = || {
        world
            .program(
                "unshare",
                &[&APART[..], &["podman", "images", "-a", "-q"]].concat(),
            )
            .env("CONTAINERS_STORAGE_CONF", &settings)
            .ok()
            .stdout
    };
    assert_eq!(images(), "");
    build().ok();
    assert_eq!(images().lines().count(), 1);
}

fn containerd(world: &World, signal: Signal) {
    sources(world);
    let containerd = ContainerdProcess::start(&world.path("c"));
    let build = || {
        world
            .kiln(&["build", "-t", "app", "--load=containerd", "ctx"])
            .env("CONTAINERD_ADDRESS", containerd.address())
    };
    Front::new(world, "ctr", "import").give_up(build(), signal);
    let images = || containerd.ctr(&["images", "ls", "-q"]).unwrap();
    assert_eq!(images(), "");
    build().ok();
    assert_eq!(images().lines().count(), 1);
}
