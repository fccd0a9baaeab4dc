//! How the private nats-server runs. Only what version 2.9 knows: it refuses, for one, `sync_interval`.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{DataDir, Error, private_file};

/// The store may grow to this; a stream with a larger `max_bytes` is refused.
const FILE_STORE_MAX: &str = "16GB";
/// Everything of ours lies in files.
const MEMORY_STORE_MAX: &str = "64MB";

/// What a client that gives no password (not every client takes one from a URL) may ask JetStream: to be told of the
/// stream and to consume it, not to change it or to publish. Messages hold no value about a person.
const READER_ASKS: &str = "\"$JS.API.INFO\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.LIST\", \
                           \"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.MSG.GET.*\", \"$JS.API.DIRECT.GET.>\", \
                           \"$JS.API.CONSUMER.>\", \"$JS.ACK.>\", \"$JS.FC.>\"";

#[derive(Debug)]
pub struct Configuration {
    pub home: PathBuf,
    pub port: u16,
    pub user: &'static str,
    pub password: String,
}

impl Configuration {
    pub fn path(&self) -> PathBuf {
        self.home.join("nats.conf")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.home.join("nats.pid")
    }

    pub fn write(&self, directory: &DataDir) -> Result<(), Error> {
        private_file::write(&self.path(), &self.text(), Some(directory.account()))
    }

    /// No monitoring port: what it shows needs no password.
    fn text(&self) -> Vec<u8> {
        let Self { port, user, password, .. } = self;
        let head = format!(
            "host: 127.0.0.1\nport: {port}\nserver_name: rollcall\nno_auth_user: reader\nauthorization {{ users: [\n\
             {{ user: \"{user}\", password: \"{password}\" }}\n\
             {{ user: reader, password: \"{password}\", permissions: {{ subscribe: \">\", publish: [{READER_ASKS}] }} }}\n\
             ] }}\n"
        );
        let limits = format!("max_memory_store: {MEMORY_STORE_MAX}\nmax_file_store: {FILE_STORE_MAX}");
        let (store, pid_file) = (quoted(&self.home), quoted(&self.pid_file()));
        let parts: [&[u8]; 7] = [
            head.as_bytes(),
            b"pid_file: ",
            &pid_file,
            b"\njetstream {\nstore_dir: ",
            &store,
            b"\n",
            limits.as_bytes(),
        ];
        [&parts.concat(), b"\n}\n".as_slice()].concat()
    }
}

/// A path need not be UTF-8, so this works on bytes.
fn quoted(path: &Path) -> Vec<u8> {
    let escaped = path.as_os_str().as_bytes().iter().flat_map(|byte| match byte {
        b'"' | b'\\' => vec![b'\\', *byte],
        b'\n' => b"\\n".to_vec(),
        other => vec![*other],
    });
    [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_a_path_do_not_end_it() {
        assert_eq!(quoted(Path::new(r#"/a "b"\c"#)), br#""/a \"b\"\\c""#);
    }

    #[test]
    fn the_configuration_lets_only_the_service_write_and_only_on_loopback() {
        let configuration = Configuration {
            home: "/data/nats".into(),
            port: 20_000,
            user: "rollcall",
            password: "secret".into(),
        };
        let text = String::from_utf8(configuration.text()).unwrap();
        for line in [
            "host: 127.0.0.1",
            "port: 20000",
            "no_auth_user: reader",
            r#"{ user: "rollcall", password: "secret" }"#,
            r#"pid_file: "/data/nats/nats.pid""#,
            r#"store_dir: "/data/nats""#,
        ] {
            assert!(text.lines().any(|had| had == line), "{line} is not in\n{text}");
        }
        let reader = text.lines().find(|line| line.starts_with("{ user: reader")).unwrap();
        assert!(
            reader.contains("permissions") && !reader.contains("rollcall.") && !reader.contains("DELETE")
        );
        assert!(!text.contains("http") && !text.contains("sync_interval"));
    }
}
