//! What a process cannot see or do.

use std::os::fd::AsRawFd;

use kiln_sandbox::{Network, Privileges, Spec, User};

use crate::rootfs::{Rootfs, check, check_in, open, run};

const CAPABILITIES: &str =
    "while read k v; do case $k in Cap*) echo $k $v;; esac; done < /proc/self/status";

pub(crate) const TESTS: crate::Tests = &[
    ("only_its_own_processes", || {
        check("echo /proc/[0-9]*", "/proc/1 /proc/2")
    }),
    ("dockers_capabilities", || {
        let all = "00000000a80425fb";
        let none = "0000000000000000";
        check(
            CAPABILITIES,
            &format!("CapInh: {none}\nCapPrm: {all}\nCapEff: {all}\nCapBnd: {all}\nCapAmb: {none}"),
        );
        let nobody = User {
            uid: 1,
            gid: 1,
            groups: vec![],
        };
        check_with(
            |spec| spec.user = nobody,
            CAPABILITIES,
            &format!(
                "CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {all}\nCapAmb: {none}"
            ),
        );
    }),
    ("insecure_keeps_capabilities_of_any_user", || {
        let root = Rootfs::new();
        let mut spec = root
            .sh("while read k v; do case $k in CapEff:) echo $v;; esac; done < /proc/self/status");
        spec.privileges = Privileges::Insecure;
        spec.user.uid = 1000;
        let effective = run(spec).unwrap().stdout;
        let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
        assert!(
            effective & (1 << 21) != 0,
            "CAP_SYS_ADMIN is missing in {effective:x}"
        );
    }),
    ("a_filter_and_still_set_user_id_programs", || {
        let script = "while read k v; do case $k in Seccomp:|NoNewPrivs:) echo $k $v;; esac; done < /proc/self/status";
        check(script, "NoNewPrivs: 0\nSeccomp: 2");
        check_with(
            |spec| spec.privileges = Privileges::Insecure,
            script,
            "NoNewPrivs: 0\nSeccomp: 0",
        );
    }),
    ("the_filter_refuses_a_key_ring", || {
        crate::nested::check("keyring", |_| {}, "refused with EPERM");
        crate::nested::check(
            "keyring",
            |spec| spec.privileges = Privileges::Insecure,
            "granted",
        );
    }),
    ("the_hosts_binary_cannot_be_written", || {
        // Appending, so that nothing is lost if it could.
        let script = "( : >> /proc/1/exe ) 2>/dev/null && echo written || echo refused";
        check(script, "refused");
        check_with(
            |spec| spec.privileges = Privileges::Insecure,
            script,
            "refused",
        );
    }),
    ("the_first_process_cannot_be_looked_into", || {
        check(
            "ls /proc/1/fd /proc/1/root /proc/1/cwd >/dev/null 2>&1 && echo seen || echo refused",
            "refused",
        );
    }),
    ("no_inherited_descriptors", || {
        // One that is not close-on-exec, as a library may leave about.
        let leaked = nix::unistd::dup(open(std::path::Path::new("/"))).unwrap();
        assert!(leaked.as_raw_fd() > 2);
        // The last is the listing's own.
        check("ls /proc/self/fd | wc -l", "4");
        check_with(
            |spec| spec.privileges = Privileges::Insecure,
            "ls /proc/self/fd | wc -l",
            "4",
        );
        check_with(
            |spec| spec.privileges = Privileges::Insecure,
            "ls -l /proc/1/fd | while read a b c d e f g h i j target; do case $target in /dev/null) ;; /*) echo $target;; esac; done",
            "",
        );
    }),
    ("no_mount_leads_out", || {
        let script = "while read a b c d point rest; do case $point in /proc*|/sys*|/dev*) ;; *) echo $point;; esac; done < /proc/self/mountinfo; ls -a /; cd ..; ls .. | wc -l";
        let output = "/\n.\n..\nbin\ndev\nproc\nsys\n4";
        check(script, output);
        let output = "/\n/etc/hosts\n.\n..\nbin\ndev\netc\nproc\nsys\n5";
        check_with(|spec| spec.hosts = Some(Vec::new()), script, output);
    }),
    ("masked_paths", || {
        check(
            "cat /proc/kcore /proc/timer_list /proc/keys 2>/dev/null | wc -c; ls /sys/firmware",
            "0",
        );
        check(
            "ls /proc/acpi /proc/scsi 2>/dev/null | while read line; do case $line in /proc*|'') ;; *) echo $line;; esac; done",
            "",
        );
    }),
    ("kernel_settings_are_read_only", || {
        let script = "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do ( : >> $f ) 2>/dev/null && echo $f; done";
        check(script, "");
    }),
    ("mounting_is_refused", || {
        check(
            "mount -t tmpfs x /bin 2>/dev/null && echo mounted || echo refused",
            "refused",
        );
        check_with(
            |spec| spec.privileges = Privileges::Insecure,
            "mount -t tmpfs x /sys && ls /sys | wc -l",
            "0",
        );
    }),
    ("devices", || {
        check(
            "cd /dev; echo *; test -c null && echo ok > null; dd if=zero bs=3 count=1 2>/dev/null | wc -c",
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n3",
        );
    }),
    ("made_devices_do_not_open", || {
        let script = "for at in / /dev/ /dev/shm/; do mknod ${at}made c 1 5 2>/dev/null; \
                      ( : < ${at}made ) 2>/dev/null && echo ${at}made opens; done; \
                      rm -f /made /dev/made /dev/shm/made; : < /dev/zero && echo done";
        check(script, "done");
    }),
    ("any_user_may_use_devices", || {
        let nobody = User {
            uid: 1,
            gid: 1,
            groups: vec![],
        };
        check_with(
            |spec| spec.user = nobody,
            "echo x > /dev/null; echo y > /dev/shm/y; cat /dev/shm/y; ls -ld /dev/shm | { read mode rest; echo $mode; }",
            "y\ndrwxrwxrwt",
        );
    }),
    ("shared_memory_has_its_size", || {
        check_with(
            |spec| spec.shm_size_bytes = Some(1 << 20),
            "dd if=/dev/zero of=/dev/shm/x bs=64k count=17 2>&1 | { read one; echo $one; }; stat -c %s /dev/shm/x",
            "dd: error writing '/dev/shm/x': No space left on device\n1048576",
        );
    }),
    ("no_network_but_loopback", || {
        let interfaces = "for i in /sys/class/net/*; do echo ${i##*/}; done; ifconfig lo | while read line; do case $line in inet*addr:127*|UP*) echo $line;; esac; done";
        let output =
            "lo\ninet addr:127.0.0.1 Mask:255.0.0.0\nUP LOOPBACK RUNNING MTU:65536 Metric:1";
        check_with(|spec| spec.network = Network::None, interfaces, output);
    }),
    ("the_hosts_network", || {
        let host = std::fs::read_link("/proc/self/ns/net")
            .unwrap()
            .display()
            .to_string();
        check("readlink /proc/self/ns/net", &host);
    }),
    ("namespaces_are_its_own", || {
        let root = Rootfs::new();
        let inside =
            run(root.sh("for n in mnt pid ipc uts; do readlink /proc/self/ns/$n; done")).unwrap();
        for line in inside.stdout.lines() {
            let name = line.split(':').next().unwrap();
            let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_ne!(host.display().to_string(), line);
        }
        assert_eq!(inside.stdout.lines().count(), 4);
    }),
];

fn check_with(change: impl FnOnce(&mut Spec), script: &str, expected: &str) {
    check_in(&Rootfs::new(), change, script, expected);
}
