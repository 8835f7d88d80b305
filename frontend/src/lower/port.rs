//! The ports of EXPOSE: `[ip:][host:]port[-end][/proto]`.

use std::net::IpAddr;
use std::str::FromStr;

/// Returns the container ports of one word as `port/proto`, ranges enumerated.
///
/// Addresses and host ports are checked and dropped. The error says what is wrong with the word.
pub(super) fn container_ports(word: &str) -> Result<Vec<String>, String> {
    let (address, host, container) = split(word);
    let (range, proto) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("invalid port: {word:?}: no port specified"));
    }
    let proto = proto.to_lowercase();
    let proto = match proto.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &proto,
        _ => return Err(format!("invalid proto: {proto}")),
    };
    if !address.is_empty() {
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        if IpAddr::from_str(bare).is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
    }
    let (start, end) =
        port_range(range).ok_or_else(|| format!("invalid containerPort: {range}"))?;
    if !host.is_empty() {
        let (host_start, host_end) =
            port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if end - start != host_end - host_start && end != start {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {range} and {host}"
            ));
        }
    }
    Ok((start..=end)
        .map(|port| format!("{port}/{proto}"))
        .collect())
}

/// Splits a word at its last two colons: address, host port, container port.
fn split(word: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = word.rsplit_once(':') else {
        return ("", "", word);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (port(start)?, port(end)?);
    (start <= end).then_some((start, end))
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::container_ports;

    #[track_caller]
    fn check(word: &str, expected: Result<&[&str], &str>) {
        let expected = expected
            .map(|ports| {
                ports
                    .iter()
                    .map(|port| (*port).to_owned())
                    .collect::<Vec<_>>()
            })
            .map_err(str::to_owned);
        assert_eq!(container_ports(word), expected, "{word}");
    }

    #[test]
    fn ports() {
        check("80", Ok(&["80/tcp"]));
        check("53/UDP", Ok(&["53/udp"]));
        check("8000-8002", Ok(&["8000/tcp", "8001/tcp", "8002/tcp"]));
        check("127.0.0.1:8080:80", Ok(&["80/tcp"]));
        check("[::1]:8080:80/sctp", Ok(&["80/sctp"]));
        check("8080:80", Ok(&["80/tcp"]));
    }

    #[test]
    fn wrong_ports() {
        check("/tcp", Err("invalid port: \"/tcp\": no port specified"));
        check("80/http", Err("invalid proto: http"));
        check("90-80", Err("invalid containerPort: 90-80"));
        check("70000", Err("invalid containerPort: 70000"));
        check("+80", Err("invalid containerPort: +80"));
        check("x:80:80", Err("invalid IP address: x"));
        check(
            "80-81:90-93",
            Err("invalid ranges specified for container and host Ports: 90-93 and 80-81"),
        );
    }
}
