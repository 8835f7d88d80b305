//! Properties of parser, expansion, ignore files and lowering, over made-up input.
#![allow(missing_docs, clippy::unwrap_used)]

mod oracle;

use proptest::prelude::*;

/// Instructions that mean something, with places for more.
const LINES: [&str; 34] = [
    "FROM scratch",
    "FROM alpine AS a",
    "from $A as b",
    "FROM --platform=$BUILDPLATFORM a AS c",
    "ARG A=a",
    "ARG x y=$A z='q r'",
    "ENV K=v L=\"$A b\" M=${K:-$A}",
    "ENV old style $A",
    "LABEL a.b=c \"d e\"=f\\ g",
    "RUN make \\\n  # note\n  && make install",
    "RUN [\"a\", \"b\\u00e9\"]",
    "RUN <<EOF\nline $A\nEOF",
    "RUN <<-E cat <<'F'\n\tone\n\tE\ntwo\nF",
    "RUN --mount=type=cache,id=$A,target=/c --network=none x",
    "RUN --mount=type=secret,id=s,required --mount=type=bind,from=a,target=/b y",
    "COPY --from=a --chown=1:2 /x /y/",
    "COPY --link --exclude=*.o . $K",
    "COPY <<f <<'g' /d/\n$A\nf\n$A\ng",
    "COPY [\"a b\", \"c\"]",
    "ADD --checksum=sha256:x https://example.com/x /x",
    "ADD a.tar b.log /",
    "WORKDIR $K/../x",
    "USER ${A:-nobody}",
    "EXPOSE 80 8000-8003/UDP $A",
    "VOLUME [\"/v\"]",
    "STOPSIGNAL SIGTERM",
    "SHELL [\"/bin/sh\", \"-c\"]",
    "HEALTHCHECK --interval=1s CMD x",
    "ONBUILD COPY <<E /x\nbody\nE",
    "ONBUILD RUN $A",
    "CMD x\nENTRYPOINT [\"y\"]",
    "MAINTAINER m\n# comment\n",
    "# check=skip=all",
    "COPP --frm=x y",
];

/// Whole files of such lines, with a directive in front or not.
fn file() -> impl Strategy<Value = String> {
    let line = prop::sample::select(LINES.to_vec());
    let head = prop::sample::select(vec!["", "", "# escape=`\n", "# check=error=true\n"]);
    (head, prop::collection::vec(line, 0..14))
        .prop_map(|(head, lines)| format!("{head}{}\n", lines.join("\n")))
}

/// Such a file with some of its characters replaced.
fn broken_file() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "$", "${", "}", "\\", "\n", "<<", "'", "\"", "=", " ", "--", "\u{e9}", "[", "#", "\t", ",",
    ]);
    let edit = (any::<prop::sample::Index>(), 0_usize..3, piece);
    (file(), prop::collection::vec(edit, 1..6)).prop_map(|(mut text, edits)| {
        for (place, drop, insert) in edits {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = place.index(starts.len());
            let end = starts.get(at + drop).copied().unwrap_or(text.len());
            text.replace_range(starts[at]..end, insert);
            if text.is_empty() {
                text.push('F');
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_parse(text in file()) {
        oracle::parse::check(&text);
    }

    #[test]
    fn broken_files_parse(text in broken_file()) {
        oracle::parse::check(&text);
    }

    #[test]
    fn any_text_parses(text in any::<String>()) {
        oracle::parse::check(&text);
    }

    #[test]
    fn files_lower(text in file()) {
        oracle::lower::check(&text);
    }

    #[test]
    fn broken_files_lower(text in broken_file()) {
        oracle::lower::check(&text);
    }

    #[test]
    fn words_expand(word in "[ab${}:+?#%/*'\"\\\\`é \n_1~=-]{0,24}") {
        oracle::expand::check(&word);
    }

    #[test]
    fn any_word_expands(word in any::<String>()) {
        oracle::expand::check(&word);
    }

    #[test]
    fn words_expand_as_they_were_meant(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::expand::Known::new(&mut bytes.into_iter()).check();
    }

    #[test]
    fn ignore_files_match(
        file in prop::collection::vec("!?[ab*?/.\\[\\]^\\\\-]{0,7}", 0..6),
        path in "[ab.]{1,3}(/[ab]{1,2}){0,3}",
    ) {
        oracle::ignore::check(&file.join("\n"), &path);
    }

    #[test]
    fn any_ignore_file_matches(file in any::<String>(), path in any::<String>()) {
        oracle::ignore::check(&file, &path);
    }
}
