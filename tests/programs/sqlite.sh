# sqlite3 in rollback journal and WAL mode, integrity, two processes
# tree: names
set -e
for mode in delete truncate persist wal; do
  db=$mode.db
  sqlite3 $db "PRAGMA journal_mode=$mode; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t(b);"
  sqlite3 $db "BEGIN; WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<5000) INSERT INTO t SELECT x, 'row '||x FROM n; COMMIT;"
  sqlite3 $db "UPDATE t SET b=b||'!' WHERE a%7=0; DELETE FROM t WHERE a%11=0; SELECT count(*), sum(length(b)) FROM t;"
  sqlite3 $db "BEGIN; DELETE FROM t; ROLLBACK; SELECT count(*) FROM t; PRAGMA integrity_check;"
  for i in 1 2 3 4; do (for j in 1 2 3 4 5; do sqlite3 -cmd '.timeout 20000' $db "INSERT INTO t(b) VALUES('p$i-$j');"; done) & done; wait
  sqlite3 $db "SELECT count(*) FROM t WHERE b LIKE 'p%'; VACUUM; PRAGMA integrity_check;"
  sqlite3 $db ".backup $mode.bak" && sqlite3 $mode.bak "SELECT count(*) FROM t;"
done
sqlite3 wal.db "PRAGMA wal_checkpoint(TRUNCATE);"
sqlite3 wal.db .dump | sqlite3 restored.db && sqlite3 restored.db "SELECT count(*) FROM t"
sqlite3 -csv wal.db "SELECT * FROM t ORDER BY a LIMIT 3" > rows.csv && cat rows.csv
sqlite3 delete.db "ATTACH 'wal.db' AS w; SELECT count(*) FROM main.t JOIN w.t USING(a);"
rm -f *.db-journal *.db-wal *.db-shm
