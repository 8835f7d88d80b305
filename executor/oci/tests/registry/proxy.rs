//! Proxies of the environment: used for hosts elsewhere, never for this machine.

use kiln_oci::reference::Reference;
use kiln_oci::registry::{Client, Config};
use kiln_test_registry::Registry;

use crate::{config, reference};

const INNER: &str = "KILN_TEST_PROXIED";

/// The HTTP library reads the environment, so this test runs itself with another one.
#[test]
fn a_proxy_is_used_for_hosts_elsewhere() {
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(ask_through_proxy());
    }
    let proxy = Registry::start();
    let digest = proxy.add_image("x", "latest", b"{}", &[]);
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "proxy::a_proxy_is_used_for_hosts_elsewhere",
            "--nocapture",
        ])
        .env("HTTP_PROXY", proxy.url())
        .env("NO_PROXY", "direct.invalid")
        .env(INNER, digest)
        .output()
        .unwrap();
    assert!(
        inner.status.success(),
        "{}",
        String::from_utf8_lossy(&inner.stderr)
    );
    // A proxy sees the whole URL; the test registry takes its path.
    assert_eq!(proxy.count("HEAD", "/v2/x/manifests/latest"), 1);
    assert_eq!(proxy.log().len(), 1);
}

async fn ask_through_proxy() {
    let hosts = ["elsewhere.invalid", "direct.invalid"];
    let client = Client::new(Config {
        insecure: hosts.map(str::to_owned).into(),
        ..config()
    });
    let resolved = client
        .resolve(&Reference::parse("elsewhere.invalid/x").unwrap())
        .await
        .unwrap();
    assert_eq!(resolved.digest.to_string(), std::env::var(INNER).unwrap());
    assert!(
        client
            .resolve(&Reference::parse("direct.invalid/x").unwrap())
            .await
            .is_err()
    );
    let here = Registry::start();
    here.add_image("x", "latest", b"{}", &[]);
    client.resolve(&reference(&here, "x")).await.unwrap();
}
