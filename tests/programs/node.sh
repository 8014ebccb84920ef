# node: fs module, streams, child processes, require from the directory
set -e
export UV_USE_IO_URING=0
cat > m.js <<'END'
module.exports = (x) => x * 2;
END
cat > main.js <<'END'
const fs = require('fs'), path = require('path'), cp = require('child_process'), twice = require('./m.js');
console.log(twice(21), path.basename(__filename));
fs.mkdirSync('a/b', { recursive: true });
fs.writeFileSync('a/f', 'hello'); fs.appendFileSync('a/f', ' world');
console.log(fs.readFileSync('a/f', 'utf8'), fs.statSync('a/f').size, fs.existsSync('none'));
fs.copyFileSync('a/f', 'a/b/g'); fs.renameSync('a/b/g', 'a/b/h'); fs.symlinkSync('f', 'a/l'); fs.linkSync('a/f', 'a/hard');
console.log(fs.readlinkSync('a/l'), fs.statSync('a/hard').nlink, fs.readdirSync('a').sort().join());
fs.utimesSync('a/f', 1000, 2000); console.log(fs.statSync('a/f').mtimeMs);
console.log(fs.realpathSync('a/l') === path.join(process.cwd(), 'a/f'));
try { fs.readFileSync('none') } catch (e) { console.log(e.code) }
try { fs.rmdirSync('a') } catch (e) { console.log(e.code) }
const fd = fs.openSync('rw', 'w+'); fs.writeSync(fd, Buffer.alloc(100000, 'x')); fs.ftruncateSync(fd, 5); fs.fsyncSync(fd);
const b = Buffer.alloc(10); console.log(fs.readSync(fd, b, 0, 10, 0)); fs.closeSync(fd);
console.log(cp.execSync('cat a/f').toString()); console.log(cp.spawnSync('sh', ['-c', 'echo $1 > out', 'sh', 'spawned']).status, fs.readFileSync('out', 'utf8').trim());
(async () => {
  const p = fs.promises; await p.writeFile('p', 'async'); console.log(await p.readFile('p', 'utf8'));
  await Promise.all(Array.from({ length: 50 }, (_, i) => p.writeFile('many-' + i, 'n' + i)));
  console.log((await p.readdir('.')).filter((n) => n.startsWith('many-')).length);
  await new Promise((done) => fs.createReadStream('main.js').pipe(fs.createWriteStream('copy.js')).on('close', done));
  console.log(fs.readFileSync('main.js').equals(fs.readFileSync('copy.js')));
  await p.rm('a', { recursive: true }); console.log(fs.existsSync('a'));
  const tmp = await p.mkdtemp('t-'); console.log(fs.statSync(tmp).isDirectory()); await p.rmdir(tmp);
})();
END
node main.js
rm -f many-*
