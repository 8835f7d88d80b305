//! The page of a build: what is in it, that nothing in it acts, and how it looks in a real browser.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::Capability::{self, Chromium, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const BROWSER: &[Capability] = &[Containers, Chromium];
    vec![
        case("page", NEEDS, page),
        case("hostile_output", NEEDS, hostile_output),
        case("failed_build", NEEDS, failed_build),
        case("cached_build", NEEDS, cached_build),
        case("no_request_leaves", BROWSER, no_request_leaves),
        case("light_and_dark", BROWSER, light_and_dark),
        case("two_hundred_steps", BROWSER, two_hundred_steps),
    ]
}

const TWO_STAGES: &str = "
    FROM demo/base AS made
    COPY src /src
    RUN cat /src/a > /out; echo from the step
    FROM demo/base
    COPY --from=made /out /out
    RUN sleep 0.05
";

/// Everything that a step can print against the page that shows it.
const HOSTILE: &str = r#"
    FROM demo/base
    RUN printf '</pre></details><script>document.title="owned"</script>\n'
    RUN printf '<img src=http://reach.example/x onerror=alert(1)><style>@import "http://reach.example/y";</style>\n'
    RUN printf '\033[31mred\033[0m \033]0;title\007done\n\342\200\256reversed\n'
    RUN echo "<svg onload=alert(1)><a href='javascript:alert(1)'>" "--><!--" "]]>"
"#;

fn first(world: &World, dockerfile: &str) {
    world.base();
    world.write("ctx/src/a", "first\n");
    world.dockerfile(dockerfile);
    world.build();
}

/// The page of the latest build, as a file and as text.
fn report(world: &World) -> String {
    let told = world
        .kiln(&["builds", "report", "latest", "-o", "page.html"])
        .ok()
        .stdout;
    assert_eq!(told, "page.html\n");
    world.read("page.html")
}

/// The names of all elements that a page has, `style` included.
fn elements(page: &str) -> BTreeSet<String> {
    let names = page.split('<').skip(1).map(|rest| {
        let name = rest.trim_start_matches('/');
        let end = name.find(|c: char| !c.is_ascii_alphanumeric());
        name[..end.unwrap_or(name.len())].to_lowercase()
    });
    names.collect()
}

/// Nothing in a page loads anything, acts, or leads away.
fn check_still(page: &str) {
    let allowed = [
        "", "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p",
        "code", "span", "section", "div", "strong", "small", "dl", "dt", "dd", "i", "b", "a", "em",
        "u", "ul", "li", "pre", "mark", "details", "summary", "label", "input", "footer", "svg",
        "defs", "marker", "path", "rect", "text", "tspan", "g",
    ];
    let used = elements(page);
    let others: Vec<&String> = used
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let policy = "content=\"default-src 'none'; style-src 'unsafe-inline';";
    assert!(page.contains(policy), "no policy");
    for tag in page
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
    {
        for attribute in [" src=", " onload", " onerror", " onclick", " refresh"] {
            // Not what stands in quotes.
            let names: String = tag.split('"').step_by(2).collect();
            assert!(!names.to_lowercase().contains(attribute), "<{tag}>");
        }
        if let Some((_, link)) = tag.split_once(" href=\"") {
            assert!(link.starts_with('#'), "<{tag}>");
        }
    }
    let style = page
        .split("<style>")
        .skip(1)
        .map(|rest| rest.split("</style>").next());
    for style in style.flatten() {
        let loads = style.replace("url(#", "").contains("url(") || style.contains("@import");
        assert!(!loads, "{style}");
    }
}

fn page(world: &World) {
    first(world, TWO_STAGES);
    world.write("ctx/src/a", "changed\n");
    world.build();
    let page = report(world);
    check_still(&page);
    for section in ["Timeline", "Graph", "Where time and bytes went", "Steps"] {
        assert!(page.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    assert_eq!(page.matches("<details class=\"step ").count(), 5);
    assert!(
        page.contains("src/a changed (6 -&gt; 8 bytes)"),
        "no reason"
    );
    assert!(page.contains("<pre>from the step\n</pre>"), "no output");
    // Each step of the picture leads to its own place.
    for step in 1..=5 {
        assert!(
            page.contains(&format!("<a href=\"#step-{step}\"><g class=\"")),
            "{step}"
        );
        assert!(page.contains(&format!("id=\"step-{step}\"")), "{step}");
    }
    let printed = world.kiln(&["builds", "report", "-o", "-"]).ok().stdout;
    assert_eq!(printed, page);
    let by_default = world.kiln(&["builds", "report"]).ok().stdout;
    assert_eq!(world.read(by_default.trim_end()), page);
}

fn hostile_output(world: &World) {
    first(world, HOSTILE);
    let page = report(world);
    check_still(&page);
    assert!(
        page.contains("&lt;/pre&gt;&lt;/details&gt;&lt;script&gt;"),
        "not shown"
    );
    assert!(
        page.contains("red done\n<u>U+202E</u>reversed\n"),
        "not shown"
    );
}

fn failed_build(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo '<b>before</b>'; exit 3\nRUN echo after\n");
    world.kiln(&["build", "ctx"]).exits(1);
    let page = report(world);
    check_still(&page);
    assert!(
        page.contains("<span class=\"badge failed\">failed</span>"),
        "no badge"
    );
    assert!(page.contains("failed: exit code 3</p>"), "no cause");
    assert!(
        page.contains("<details class=\"step failed on-path\" open>"),
        "not open"
    );
    assert!(
        page.contains("<pre>&lt;b&gt;before&lt;/b&gt;\n</pre>"),
        "no output"
    );
}

fn cached_build(world: &World) {
    first(world, TWO_STAGES);
    world.build();
    let page = report(world);
    check_still(&page);
    assert!(page.contains("as in build "), "no origin");
    // Only the export took time.
    assert_eq!(page.matches("class=\"row\"").count(), 1);
}

/// A headless browser, all of whose requests but those of its own services go to `port`.
fn browser(world: &World, port: u16, arguments: &[&str], page: &str) -> Vec<u8> {
    let own = [
        "google.com",
        "googleapis.com",
        "gstatic.com",
        "gvt1.com",
        "gvt2.com",
    ];
    let mut rules: Vec<String> = own
        .iter()
        .map(|host| format!("MAP *.{host} ~NOTFOUND"))
        .collect();
    rules.push(format!("MAP * 127.0.0.1:{port}"));
    let rules = format!("--host-resolver-rules={}", rules.join(", "));
    let profile = format!("--user-data-dir={}", world.path("../tmp/profile").display());
    let url = format!(
        "file://{}",
        world.path(page).canonicalize().unwrap().display()
    );
    let fixed = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-default-apps",
        "--disable-breakpad",
        "--disable-domain-reliability",
        "--hide-scrollbars",
        rules.as_str(),
        profile.as_str(),
    ];
    world
        .program(
            "chromium",
            &[&fixed[..], arguments, &[url.as_str()]].concat(),
        )
        .ok()
        .stdout_bytes
}

/// Whoever is asked, it is this one, who hangs up.
struct Everybody {
    port: u16,
    asked: Receiver<String>,
}

/// What the case itself asks, so that all that was asked before is known.
const LAST: &str = "no more";

impl Everybody {
    fn new() -> Everybody {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = channel();
        // Ends with the first question that nobody waits for.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let mut bytes = [0; 200];
                let count = (&stream).read(&mut bytes).unwrap_or(0);
                let question = String::from_utf8_lossy(&bytes[..count]).into_owned();
                if tell.send(question).is_err() {
                    return;
                }
            }
        });
        Everybody { port, asked }
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        let mut own = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        own.write_all(LAST.as_bytes()).unwrap();
        let asked = self.asked.iter();
        asked.take_while(|question| question != LAST).collect()
    }
}

impl Drop for Everybody {
    fn drop(&mut self) {
        let (_, nobody) = channel();
        self.asked = nobody;
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn no_request_leaves(world: &World) {
    first(world, HOSTILE);
    report(world);
    let everybody = Everybody::new();
    let dump = |page: &str| {
        let document = browser(world, everybody.port, &["--dump-dom"], page);
        String::from_utf8(document).unwrap()
    };
    let document = dump("page.html");
    assert_eq!(everybody.asked(), [] as [String; 0]);
    assert!(document.contains("<title>app"), "the title was changed");
    assert!(!document.contains("<script"), "an element was made of text");
    // A page that does ask is heard, so that silence says something.
    world.write(
        "asks.html",
        "<script>document.title='ran'</script><img src=http://reach.example/x>",
    );
    assert!(dump("asks.html").contains("<title>ran</title>"));
    assert!(!everybody.asked().is_empty());
}

/// The colour of the first pixel of a PNG, which no filter changes.
fn first_pixel(path: &Path) -> [u8; 3] {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[8..];
    let mut data = Vec::new();
    while rest.len() >= 12 {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        if &rest[4..8] == b"IDAT" {
            data.extend_from_slice(&rest[8..8 + length]);
        }
        rest = &rest[12 + length..];
    }
    let mut row = [0; 4];
    flate2::read::ZlibDecoder::new(&data[..])
        .read_exact(&mut row)
        .unwrap();
    [row[1], row[2], row[3]]
}

fn light_and_dark(world: &World) {
    first(world, TWO_STAGES);
    report(world);
    let everybody = Everybody::new();
    let background = |name: &str, scheme: &str| {
        let picture = world.path(name);
        let to = format!("--screenshot={}", picture.display());
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let arguments = [to.as_str(), scheme.as_str(), "--window-size=1200,900"];
        browser(world, everybody.port, &arguments, "page.html");
        first_pixel(&picture)
    };
    assert_eq!(background("light.png", "1"), [0xf6, 0xf7, 0xf9]);
    assert_eq!(background("dark.png", "0"), [0x0f, 0x11, 0x15]);
    assert_eq!(everybody.asked(), [] as [String; 0]);
}

fn two_hundred_steps(world: &World) {
    world.base();
    world.write("ctx/src/a", "first\n");
    let mut dockerfile = "FROM demo/base AS s0\n".to_owned();
    for stage in 1..=20 {
        dockerfile += &format!("FROM s{} AS s{stage}\n", stage / 3);
        for step in 0..9 {
            dockerfile += &format!("COPY src/a /{stage}-{step}\n");
        }
    }
    dockerfile += "FROM s0\n";
    for stage in 1..=20 {
        dockerfile += &format!("COPY --from=s{stage} /{stage}-8 /all/\n");
    }
    world.write("ctx/Dockerfile", dockerfile);
    world.build();
    let page = report(world);
    check_still(&page);
    assert_eq!(page.matches("<details class=\"step ").count(), 201);
    let everybody = Everybody::new();
    let document = browser(world, everybody.port, &["--dump-dom"], "page.html");
    let document = String::from_utf8(document).unwrap();
    assert_eq!(document.matches("<details class=\"step ").count(), 201);
    assert_eq!(everybody.asked(), [] as [String; 0]);
}
