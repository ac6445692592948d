//! `embeddery generate`: completions and man pages. `make test-ops` loads them into shells and `man`.

use std::{fs, process::Command};

use crate::support::{command, run};

const COMMANDS: [&str; 8] =
    ["serve", "orchestrator", "worker", "embed", "models", "token", "health", "check"];

#[test]
fn completions_and_man_pages_contain_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, said) = run(command(dir.path(), &["generate", "made"]));
    assert_eq!(code, 0, "{said}");
    let read = |path: &str| fs::read_to_string(dir.path().join("made").join(path)).unwrap();
    assert!(read("embeddery.default.yaml").contains("listen: 127.0.0.1:8000"));
    let overview = read("man/embeddery.1");
    for word in COMMANDS {
        let page = read(&format!("man/embeddery-{word}.1"));
        assert!(page.contains(&format!(".TH embeddery-{word} 1")), "{page}");
        assert!(overview.contains(&format!("embeddery\\-{word}(1)")), "{word} is missing in the overview");
        for shell in ["embeddery.bash", "_embeddery", "embeddery.fish"] {
            assert!(read(&format!("completions/{shell}")).contains(word), "{word} is missing for {shell}");
        }
    }
    let script = ". made/completions/embeddery.bash; COMP_WORDS=(embeddery ser); COMP_CWORD=1; \
                  _embeddery embeddery ser embeddery; echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", script]).current_dir(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "serve", "{completed:?}");
    let (code, _, said) = run(command(dir.path(), &["generate", "made/man/embeddery.1"]));
    assert!(code != 0 && said.contains("made/man/embeddery.1"), "{said}");
}
