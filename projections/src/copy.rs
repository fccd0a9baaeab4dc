//! Rows for `COPY … FROM STDIN (FORMAT binary)`, as <https://www.postgresql.org/docs/15/sql-copy.html> describes it: the way
//! into a table that costs the server least.

use sqlx::PgConnection;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const INT4_OID: i32 = 23;
/// jsonb's binary form: this number, and JSON.
const JSONB_VERSION: u8 = 1;

/// Rows on their way into a table.
pub(crate) struct Rows {
    fields: i16,
    rows: u64,
    bytes: Vec<u8>,
}

/// A row's fields, in the order of the columns.
pub(crate) struct Row<'a>(&'a mut Vec<u8>);

impl Rows {
    /// Rows of so many fields.
    pub fn new(fields: i16) -> Self {
        let mut bytes = SIGNATURE.to_vec();
        // No flags, and no extension of the header.
        bytes.extend_from_slice(&[0; 8]);
        Self { fields, rows: 0, bytes }
    }

    pub fn row(&mut self) -> Row<'_> {
        self.rows += 1;
        self.bytes.extend_from_slice(&self.fields.to_be_bytes());
        Row(&mut self.bytes)
    }

    /// Sends the rows with a statement that takes them; how many were stored.
    ///
    /// # Errors
    /// Where the database refuses.
    pub async fn send(mut self, connection: &mut PgConnection, statement: &str) -> Result<u64, sqlx::Error> {
        if self.rows == 0 {
            return Ok(0);
        }
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.bytes).await?;
        copy.finish().await
    }

    pub fn count(&self) -> u64 {
        self.rows
    }
}

impl Row<'_> {
    pub fn int8(self, value: i64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn int4(self, value: i32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub fn bytes(self, value: &[u8]) -> Self {
        self.0.extend_from_slice(&length(value.len()));
        self.0.extend_from_slice(value);
        self
    }

    pub fn jsonb(self, json: &str) -> Self {
        self.0.extend_from_slice(&length(1 + json.len()));
        self.0.push(JSONB_VERSION);
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    pub fn int4_array(self, values: &[i32]) -> Self {
        // An array without elements has no dimension.
        let dimensions = i32::from(!values.is_empty());
        let mut header = vec![dimensions, 0, INT4_OID];
        if dimensions > 0 {
            header.extend([i32::try_from(values.len()).expect("a row is far smaller"), 1]);
        }
        self.0.extend_from_slice(&length(4 * header.len() + 8 * values.len()));
        self.0.extend(header.into_iter().flat_map(i32::to_be_bytes));
        for value in values {
            self.0.extend_from_slice(&length(4));
            self.0.extend_from_slice(&value.to_be_bytes());
        }
        self
    }
}

fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).expect("a field is far smaller than 2 GiB").to_be_bytes()
}
